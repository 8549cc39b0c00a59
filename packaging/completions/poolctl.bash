# bash completion for poolctl(1)

_poolctl() {
    local word=${COMP_WORDS[COMP_CWORD]} verb= i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* ]] && continue
        verb=${COMP_WORDS[i]}
        break
    done

    local pools=
    case $verb in
        '')
            mapfile -t COMPREPLY < <(compgen -W 'list status watch statistics devices quarantine readmit start stop drain wait explain bugreport reset cancel lease register unregister report check reload diff apply --json --help --version' -- "$word")
            return
            ;;
        quarantine | readmit)
            mapfile -t COMPREPLY < <(compgen -W "$(poolctl devices 2>/dev/null | awk 'NR > 1 { print $2 }') --json" -- "$word")
            ;;
        list | devices | cancel | bugreport)
            mapfile -t COMPREPLY < <(compgen -W '--json' -- "$word"; [[ $verb != bugreport ]] || compgen -f -- "$word")
            ;;
        register)
            [[ ${COMP_WORDS[COMP_CWORD - 1]} == --@(engine|endpoint|heartbeat-timeout) ]] && return
            mapfile -t COMPREPLY < <(compgen -W '--engine --endpoint --heartbeat-timeout --json' -- "$word")
            ;;
        status | watch | statistics | start | stop | drain | wait | explain | reset | lease | unregister | report | reload | diff | apply)
            if [[ ${COMP_WORDS[COMP_CWORD - 1]} == --health ]]; then
                mapfile -t COMPREPLY < <(compgen -W 'ready live down' -- "$word")
                return
            fi
            [[ ${COMP_WORDS[COMP_CWORD - 1]} == --@(timeout|deadline|model|wait|ttl|holder|engine-version|error) ]] && return
            if [[ $verb == lease ]]; then
                for ((i = 2; i < COMP_CWORD; i++)); do
                    [[ ${COMP_WORDS[i]} == -- ]] || continue
                    mapfile -t COMPREPLY < <(compgen -c -f -- "$word")
                    return
                done
            fi
            pools=$(poolctl list 2>/dev/null | awk 'NR > 1 { print $1 }')
            ;;&
        start | apply)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json --no-wait" -- "$word")
            ;;
        stop)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json --all --no-wait" -- "$word")
            ;;
        drain)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json --deadline --no-wait" -- "$word")
            ;;
        status)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json --unit" -- "$word")
            ;;
        explain | watch | statistics | reset | unregister | diff)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json" -- "$word")
            ;;
        report)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json --health --heartbeat --engine-version --error" -- "$word")
            ;;
        lease)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json --wait --ttl --holder --" -- "$word")
            ;;
        reload)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json --model --deadline --force --no-wait" -- "$word")
            ;;
        wait)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json --timeout" -- "$word")
            ;;
        check)
            mapfile -t COMPREPLY < <(compgen -W '--root --json' -- "$word"; compgen -f -X '!*.toml' -- "$word"; compgen -d -S / -- "$word")
            [[ ${COMPREPLY[*]} == */ ]] && compopt -o nospace 2>/dev/null
            ;;
    esac
}

complete -F _poolctl poolctl
