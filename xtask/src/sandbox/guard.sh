# Owns one sandbox from mount to removal: bash guard.sh FOLDER TREE TREE-LOCK MACHINE JOURNAL BUS-UNIT
#
# Runs in a session and a mount namespace of its own. Standard input is the owner's hold on it: when its other end
# closes, however the owner ended, the sandbox is taken down. The words `keep` (outlive the owner) and `stop` come the
# same way. Standard output says `leader PID` once systemd runs as PID 1 inside, or `error WHY`.
set -u
folder=$1 tree=$2 tree_lock=$3 machine=$4 journal=$5 bus_unit=$6
nspawn='' leader='' group=''
exec 3<&0 </dev/null 2>"$folder/guard.log"

say() { printf '%s\n' "$*" 2>/dev/null || :; }

v2_mount() {
  local where kind
  while read -r _ where kind _; do
    [[ $kind == cgroup2 ]] && { printf '%s' "$where"; return 0; }
  done </proc/self/mounts
  return 1
}

finish() {
  trap '' TERM INT HUP EXIT
  exec >/dev/null 3<&-
  if [[ -n $leader && -d /proc/$leader ]]; then
    timeout 5 nsenter -t "$leader" -m -p -u -i -n -C -r -w journalctl --boot --no-pager -o short-precise \
      >"$journal.part" 2>/dev/null && mv "$journal.part" "$journal"
    rm -f "$journal.part"
    kill -KILL "$leader"
  fi
  if [[ -n $nspawn ]]; then
    local i
    for ((i = 0; i < 100; i++)); do kill -0 "$nspawn" 2>/dev/null || break; sleep 0.02; done
    kill -KILL "$nspawn" 2>/dev/null
    wait "$nspawn"
  fi
  if [[ -n $group && -d $group ]]; then
    { echo 1 >"$group/cgroup.kill"; } 2>/dev/null
    local tries
    for ((tries = 0; tries < 50; tries++)); do
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
      [[ -d $group ]] || break
      sleep 0.05
    done
    # A host with cgroup v1 mirrors the name in systemd's own hierarchy.
    find "/sys/fs/cgroup/systemd/$machine" -depth -type d -exec rmdir {} + 2>/dev/null
  fi
  umount -l "$folder/work" 2>/dev/null
  rm -rf --one-file-system "$folder"
}
trap finish EXIT
trap 'exit 1' TERM INT HUP

fail() {
  say "error $*"
  exit 1
}

exec 9>"$folder/lock" 8<"$tree_lock" || fail "cannot open the lock files"
flock -n 9 || fail "another guard holds $folder"
flock -s 8 || fail "cannot lock $tree_lock"
[[ -d $tree ]] || fail "$tree is gone"

# An own layer over the tree, in memory; a copy of the tree where that cannot be.
work=$folder/work root=$folder/work/root
mkdir -p "$work"
if mount -t tmpfs -o mode=0755 sandbox "$work" && mkdir "$work/upper" "$work/workdir" "$root" &&
  mount -t overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/workdir" sandbox "$root"; then
  :
else
  umount -l "$work" 2>/dev/null
  mkdir -p "$root" && cp -a --reflink=auto "$tree/." "$root/" ||
    fail "can neither lay an overlay over $tree nor copy it: $(tail -n 1 "$folder/guard.log")"
fi

# What the name dbus.service leads to is what the system bus is.
[[ -e $root/usr/lib/systemd/system/$bus_unit ]] || fail "$tree has no $bus_unit"
rm -f "$root/etc/systemd/system/dbus.service"
if [[ $bus_unit != dbus.service ]]; then
  ln -s "/usr/lib/systemd/system/$bus_unit" "$root/etc/systemd/system/dbus.service" || fail "cannot choose $bus_unit"
fi

if [[ -d /run/systemd/system ]]; then
  # The host's systemd owns the cgroup tree: ask it for a scope, with every controller delegated.
  start=(systemd-run --scope --quiet --collect "--unit=$machine" -p Delegate=yes --)
else
  if ! v2=$(v2_mount); then
    v2=/sys/fs/cgroup/unified
    { mkdir -p "$v2" && mount -t cgroup2 cgroup2 "$v2"; } ||
      fail "this host has no cgroup v2 hierarchy and none can be mounted at $v2; the sandbox's systemd needs one"
  fi
  # Two nspawns in one cgroup would share their payloads' cgroups: one of its own each.
  group=$v2/$machine
  mkdir "$group" || fail "cannot make the cgroup $group"
  start=(bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group")
fi

# A terminal that is not dumb is asked for its size and colours, and its silence costs a newer systemd 0.7 s.
TERM=dumb SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 "${start[@]}" systemd-nspawn --quiet --boot --register=no --keep-unit \
  --private-network --capability=all --link-journal=no --resolv-conf=off --timezone=off \
  "--directory=$root" "--machine=$machine" >"$folder/console.log" 2>&1 3<&- 8<&- 9>&- &
nspawn=$!

# The container's init is the child of nspawn that is PID 1 in its namespace; it is there once it is systemd.
for ((i = 0; i < 600; i++)); do
  kill -0 "$nspawn" 2>/dev/null || fail "systemd-nspawn ended: $(tail -n 5 "$folder/console.log" | tr '\n' ' ')"
  for child in $(cat "/proc/$nspawn/task/$nspawn/children" 2>/dev/null); do
    if grep -qs $'^NSpid:.*\t1$' "/proc/$child/status" && [[ $(cat "/proc/$child/comm") == systemd ]]; then
      leader=$child
      break 2
    fi
  done
  read -r -t 0.02 -u 3 word
  (($? == 1)) && exit 1
done
[[ -n $leader ]] || fail "no systemd inside after 12 s: $(tail -n 5 "$folder/console.log" | tr '\n' ' ')"
printf '%s\n' "$leader" >"$folder/leader"
say "leader $leader"

while kill -0 "$nspawn" 2>/dev/null; do
  if read -r -t 1 -u 3 word; then
    [[ $word == stop ]] && break
    if [[ $word == keep ]]; then
      exec >/dev/null 3<&-
      : >"$folder/kept"
      # Whoever removes that file ends the sandbox.
      while [[ -e $folder/kept ]] && kill -0 "$nspawn" 2>/dev/null; do sleep 0.2; done
      break
    fi
  elif (($? <= 128)); then
    break
  fi
done
