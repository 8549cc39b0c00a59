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
            mapfile -t COMPREPLY < <(compgen -W 'list status start stop drain wait explain bugreport reset cancel lease check reload diff apply --help --version' -- "$word")
            return
            ;;
        list)
            mapfile -t COMPREPLY < <(compgen -W '--json' -- "$word")
            ;;
        status | start | stop | drain | wait | explain | reset | lease | reload | diff | apply)
            [[ ${COMP_WORDS[COMP_CWORD - 1]} == --@(timeout|deadline|model) ]] && return
            if [[ $verb == lease ]]; then
                for ((i = 2; i < COMP_CWORD; i++)); do
                    [[ ${COMP_WORDS[i]} == -- ]] || continue
                    mapfile -t COMPREPLY < <(compgen -c -f -- "$word")
                    return
                done
            fi
            pools=$(poolctl list 2>/dev/null | awk 'NR > 1 { print $1 }')
            ;;&
        status | explain)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json" -- "$word")
            ;;
        start | apply)
            mapfile -t COMPREPLY < <(compgen -W "$pools --no-wait" -- "$word")
            ;;
        stop)
            mapfile -t COMPREPLY < <(compgen -W "$pools --all --no-wait" -- "$word")
            ;;
        drain)
            mapfile -t COMPREPLY < <(compgen -W "$pools --deadline --no-wait" -- "$word")
            ;;
        reset | diff)
            mapfile -t COMPREPLY < <(compgen -W "$pools" -- "$word")
            ;;
        lease)
            mapfile -t COMPREPLY < <(compgen -W "$pools --" -- "$word")
            ;;
        reload)
            mapfile -t COMPREPLY < <(compgen -W "$pools --model --deadline --force --no-wait" -- "$word")
            ;;
        wait)
            mapfile -t COMPREPLY < <(compgen -W "$pools --timeout" -- "$word")
            ;;
        check)
            if [[ $word == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W '--root' -- "$word")
                return
            fi
            mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$word"; compgen -d -S / -- "$word")
            [[ ${COMPREPLY[*]} == */ ]] && compopt -o nospace 2>/dev/null
            ;;
    esac
}

complete -F _poolctl poolctl
