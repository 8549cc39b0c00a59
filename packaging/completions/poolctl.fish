# fish completion for poolctl(1)

set -l verbs list status start stop wait check reload

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
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a wait -d 'Wait until a pool is ready'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a check -d 'Check pool files without the daemon'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a reload -d 'Make the daemon read its configuration again'
complete -c poolctl -n '__fish_seen_subcommand_from status start stop wait' -a '(__poolctl_pools)' -d Pool
complete -c poolctl -n '__fish_seen_subcommand_from list status' -l json -d 'Print JSON'
complete -c poolctl -n '__fish_seen_subcommand_from start stop' -l no-wait -d 'Print the job and do not wait'
complete -c poolctl -n '__fish_seen_subcommand_from stop' -l all -d 'Stop all pools'
complete -c poolctl -n '__fish_seen_subcommand_from wait' -l timeout -x -d 'Give up after this time, for instance 90s'
complete -c poolctl -n '__fish_seen_subcommand_from check' -l root -x -a '(__fish_complete_directories)' -d 'Take the configuration folders from below this one'
complete -c poolctl -n '__fish_seen_subcommand_from check' -k -a '(__fish_complete_suffix .toml)'
