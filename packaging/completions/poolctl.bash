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
            mapfile -t COMPREPLY < <(compgen -W 'list status start stop wait check reload --help --version' -- "$word")
            return
            ;;
        list)
            mapfile -t COMPREPLY < <(compgen -W '--json' -- "$word")
            ;;
        status | start | stop | wait)
            [[ ${COMP_WORDS[COMP_CWORD - 1]} == --timeout ]] && return
            pools=$(poolctl list 2>/dev/null | awk 'NR > 1 { print $1 }')
            ;;&
        status)
            mapfile -t COMPREPLY < <(compgen -W "$pools --json" -- "$word")
            ;;
        start)
            mapfile -t COMPREPLY < <(compgen -W "$pools --no-wait" -- "$word")
            ;;
        stop)
            mapfile -t COMPREPLY < <(compgen -W "$pools --all --no-wait" -- "$word")
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
