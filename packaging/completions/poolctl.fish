# fish completion for poolctl(1)

set -l verbs list status watch statistics devices quarantine readmit start stop drain wait explain bugreport reset cancel lease register unregister report check reload diff apply

function __poolctl_pools
    poolctl list 2>/dev/null | awk 'NR > 1 { print $1 }'
end

function __poolctl_devices
    poolctl devices 2>/dev/null | awk 'NR > 1 { print $2 }'
end

complete -c poolctl -f
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -s h -l help -d 'Show help'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -s V -l version -d 'Show the version'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a list -d 'List all pools'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a status -d 'Show how a pool and its replicas stand'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a watch -d 'Follow what happens, until interrupted'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a statistics -d 'Show the numbers that change fast'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a devices -d 'List the devices of this host'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a quarantine -d 'Take a device out of use'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a readmit -d 'Take a device into use again'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a start -d 'Start pools and wait until they are ready'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a stop -d 'Stop pools, or all'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a drain -d 'Let pools run empty, then stop them'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a wait -d 'Wait until a pool is ready'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a explain -d 'Explain why a pool is as it is'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a bugreport -d 'Write what a report of a bug needs into one file'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a reset -d 'Forget failures of pools'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a cancel -d 'Call off a drain or a reload'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a lease -d 'Run a command with a lease of a pool'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a register -d 'Register a pool whose engines somebody else runs'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a unregister -d 'Forget pools whose engines somebody else runs'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a report -d 'Report of a pool whose engines somebody else runs'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a check -d 'Check pool files without the daemon'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a reload -d 'Make the daemon read its configuration again, or reload a pool'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a diff -d 'Show which changes of pool files wait'
complete -c poolctl -n "not __fish_seen_subcommand_from $verbs" -a apply -d 'Apply changes of pool files to engines that run'
complete -c poolctl -n '__fish_seen_subcommand_from status watch statistics start stop drain wait explain reset lease unregister report reload diff apply' -a '(__poolctl_pools)' -d Pool
complete -c poolctl -n '__fish_seen_subcommand_from quarantine readmit' -a '(__poolctl_devices)' -d Device
complete -c poolctl -l json -d 'Print JSON, errors too'
complete -c poolctl -n '__fish_seen_subcommand_from status' -l unit -d 'Show the units of its engines'
complete -c poolctl -n '__fish_seen_subcommand_from start stop drain reload apply' -l no-wait -d 'Print the job and do not wait'
complete -c poolctl -n '__fish_seen_subcommand_from stop' -l all -d 'Stop all pools'
complete -c poolctl -n '__fish_seen_subcommand_from wait' -l timeout -x -d 'Give up after this time, for instance 90s'
complete -c poolctl -n '__fish_seen_subcommand_from drain reload' -l deadline -x -d 'How long leases and requests may take, for instance 90s'
complete -c poolctl -n '__fish_seen_subcommand_from reload' -l model -x -d 'The model from now on'
complete -c poolctl -n '__fish_seen_subcommand_from reload' -l force -d 'Stop what is left at the deadline'
complete -c poolctl -n '__fish_seen_subcommand_from lease' -l wait -x -d 'Wait for a lease up to this time, for instance 90s'
complete -c poolctl -n '__fish_seen_subcommand_from lease' -l ttl -x -d 'The lease ends after this time, for instance 90s'
complete -c poolctl -n '__fish_seen_subcommand_from lease' -l holder -x -d 'Who has it'
complete -c poolctl -n '__fish_seen_subcommand_from register' -l engine -x -d 'What kind of engine it is'
complete -c poolctl -n '__fish_seen_subcommand_from register' -l endpoint -x -d 'Where it answers'
complete -c poolctl -n '__fish_seen_subcommand_from register' -l heartbeat-timeout -x -d 'Without a heartbeat for this time it is not live'
complete -c poolctl -n '__fish_seen_subcommand_from report' -l health -x -a 'ready live down' -d 'Whether it answers'
complete -c poolctl -n '__fish_seen_subcommand_from report' -l heartbeat -d 'That it works now'
complete -c poolctl -n '__fish_seen_subcommand_from report' -l engine-version -x -d 'The version of what it runs'
complete -c poolctl -n '__fish_seen_subcommand_from report' -l error -x -d 'Its last error'
complete -c poolctl -n '__fish_seen_subcommand_from check' -l root -x -a '(__fish_complete_directories)' -d 'Take the configuration folders from below this one'
complete -c poolctl -n '__fish_seen_subcommand_from check' -k -a '(__fish_complete_suffix .toml)'
