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
        status | start | stop | wait)
            [[ ${COMP_WORDS[COMP_CWORD - 1]} == --timeout ]] && return
            pools=$(poolctl list 2>/dev/null | awk 'NR > 1 { print $1 }')
            ;;&
        status | start)
            ((COMP_CWORD == i + 1)) && mapfile -t COMPREPLY < <(compgen -W "$pools" -- "$word")
            ;;
        stop)
            ((COMP_CWORD == i + 1)) && mapfile -t COMPREPLY < <(compgen -W "$pools --all" -- "$word")
            ;;
        wait)
            mapfile -t COMPREPLY < <(compgen -W "$pools --timeout" -- "$word")
            ;;
        check)
            mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$word"; compgen -d -S / -- "$word")
            [[ ${COMPREPLY[*]} == */ ]] && compopt -o nospace 2>/dev/null
            ;;
    esac
}

complete -F _poolctl poolctl
