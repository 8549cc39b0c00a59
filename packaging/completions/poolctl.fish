# fish completion for poolctl(1)

set -l verbs list status start stop drain wait explain bugreport reset cancel lease check reload diff apply

function __poolctl_pools
    poolctl list 2>/dev/null | awk 'NR > 1 { print $1 }'
end

complete -c poolctl -f
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -s h -l help -d 'Show help'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -s V -l version -d 'Show the version'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a list -d 'List all pools'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a status -d 'Show how a pool and its replicas stand'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a start -d 'Start pools and wait until they are ready'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a stop -d 'Stop pools, or all'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a drain -d 'Let pools run empty, then stop them'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a wait -d 'Wait until a pool is ready'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a explain -d 'Explain why a pool is as it is'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a bugreport -d 'Write what a report of a bug needs into one file'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a reset -d 'Forget failures of pools'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a cancel -d 'Call off a drain or a reload'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a lease -d 'Run a command with a lease of a pool'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a check -d 'Check pool files without the daemon'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a reload -d 'Make the daemon read its configuration again, or reload a pool'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a diff -d 'Show which changes of pool files wait'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a apply -d 'Apply changes of pool files to engines that run'
complete -c poolctl -n '__fish_seen_subcommand_from status start stop drain wait explain reset lease reload diff apply' -a '(__poolctl_pools)' -d Pool
complete -c poolctl -n '__fish_seen_subcommand_from list status explain' -l json -d 'Print JSON'
complete -c poolctl -n '__fish_seen_subcommand_from start stop drain reload apply' -l no-wait -d 'Print the job and do not wait'
complete -c poolctl -n '__fish_seen_subcommand_from stop' -l all -d 'Stop all pools'
complete -c poolctl -n '__fish_seen_subcommand_from wait' -l timeout -x -d 'Give up after this time, for instance 90s'
complete -c poolctl -n '__fish_seen_subcommand_from drain reload' -l deadline -x -d 'How long leases and requests may take, for instance 90s'
complete -c poolctl -n '__fish_seen_subcommand_from reload' -l model -x -d 'The model from now on'
complete -c poolctl -n '__fish_seen_subcommand_from reload' -l force -d 'Stop what is left at the deadline'
complete -c poolctl -n '__fish_seen_subcommand_from check' -l root -x -a '(__fish_complete_directories)' -d 'Take the configuration folders from below this one'
complete -c poolctl -n '__fish_seen_subcommand_from check' -k -a '(__fish_complete_suffix .toml)'
