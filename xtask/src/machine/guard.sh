# Owns one virtual machine from its disk to its removal: bash guard.sh FOLDER TREE TREE-LOCK PACKAGE QEMU WORD...
#
# Runs in a session and a mount namespace of its own. Standard input is the owner's hold on it: when its other end
# closes, however the owner ended, the machine is taken down. Standard output says `started` once qemu runs, or
# `error WHY`. FOLDER/overlay is laid over the tree, PACKAGE is installed into it as dpkg does it, and what comes of that
# is the machine's disk. qemu runs in FOLDER, so that the paths of its sockets are short.
set -u
folder=$1 tree=$2 tree_lock=$3 package=$4
shift 4
qemu=''
exec 3<&0 </dev/null 2>"$folder/guard.log"

say() { printf '%s\n' "$*" 2>/dev/null || :; }

finish() {
  trap '' TERM INT HUP EXIT
  exec >/dev/null 3<&-
  if [[ -n $qemu ]]; then
    kill -KILL "$qemu" 2>/dev/null
    wait "$qemu"
  fi
  umount -l "$folder/work/root/proc" "$folder/work/root" "$folder/work" 2>/dev/null
  rm -rf --one-file-system "$folder"
}
trap finish EXIT
trap 'exit 1' TERM INT HUP

fail() {
  say "error $*"
  exit 1
}
last() { tail -n 3 "$folder/guard.log" | tr '\n' ' '; }
# Whether the owner is still there: nothing comes on the hold, it only closes.
held() {
  local word
  read -r -t 0.01 -u 3 word
  (($? > 128))
}

exec 9>"$folder/lock" 8<"$tree_lock" || fail "cannot open the lock files"
flock -n 9 || fail "another guard holds $folder"
flock -s 8 || fail "cannot lock $tree_lock"
[[ -d $tree ]] || fail "$tree is gone"

# An own layer over the tree, in memory; a copy of the tree where that cannot be.
work=$folder/work root=$folder/work/root
mkdir -p "$work"
if mount -t tmpfs -o mode=0755 machine "$work" && mkdir "$work/upper" "$work/workdir" "$root" &&
  mount -t overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/workdir" machine "$root"; then
  :
else
  umount -l "$work" 2>/dev/null
  mkdir -p "$root" && cp -a --reflink=auto "$tree/." "$root/" ||
    fail "can neither lay an overlay over $tree nor copy it: $(last)"
fi
cp -a "$folder/overlay/." "$root/" || fail "cannot add what a machine needs to the tree: $(last)"

held || exit 1
cp "$package" "$root/package.deb" || fail "cannot copy $package: $(last)"
mount -t proc proc "$root/proc" || fail "cannot mount /proc in the tree: $(last)"
DEBIAN_FRONTEND=noninteractive chroot "$root" dpkg --install /package.deb >&2 ||
  fail "dpkg cannot install $package: $(last)"
rm "$root/package.deb"
umount "$root/proc" || fail "cannot unmount /proc in the tree: $(last)"

held || exit 1
truncate -s 2G "$folder/disk.img" || fail "cannot make a disk in $folder: $(last)"
# No journal and no lost+found checks: nobody reads this disk after a crash.
mkfs.ext4 -q -F -O ^has_journal -m 0 -d "$root" "$folder/disk.img" || fail "mkfs.ext4 cannot fill a disk: $(last)"
umount -l "$root" "$work" 2>/dev/null

held || exit 1
cd "$folder" || fail "cannot enter $folder"
# A killed guard takes qemu with it.
setpriv --pdeathsig KILL "$@" 3<&- 8<&- 9>&- >"$folder/qemu.log" 2>&1 &
qemu=$!
say started

while held; do
  kill -0 "$qemu" 2>/dev/null || fail "qemu ended: $(tail -n 3 "$folder/qemu.log" | tr '\n' ' ')"
  # A tick that costs nothing: the hold closing ends it at once.
  read -r -t 1 -u 3 _ || (($? > 128)) || break
done
