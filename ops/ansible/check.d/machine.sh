# A Debian in a folder, as a machine: built by debootstrap, entered by chroot, then started with systemd
# in namespaces of its own (systemd-nspawn), where its only network is its own loopback. For
# ops/test-infra.d/single-host; sourced.
#
# The kernel is this machine's: /proc/sys is read-only inside, the clock cannot be set, and limits of memory
# hold only where the control groups have that controller.
# Of who sources it: $root, the folder, and $scratch, for logs.
# shellcheck shell=bash disable=SC2154

# What a cloud's image of Debian has beside the base, and Ansible.
machine_packages=(ansible-core git python3-apt systemd sudo dbus openssh-server systemd-timesyncd iproute2)
machine_path=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
machine_leader=

# machine_base FILE: a tar of such a Debian, made once.
machine_base() {
    local base=$1 folder
    [ ! -s "$base" ] || return 0
    folder=$scratch/base
    debootstrap --variant=minbase --include=ca-certificates bookworm "$folder" >"$scratch/debootstrap.log" ||
        die "debootstrap failed: $(tail -n 5 "$scratch/debootstrap.log")"
    machine_prepare "$folder"
    # debootstrap itself cannot configure so much.
    chroot "$folder" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
        sh -ec 'apt-get update -q; apt-get install -y -q --no-install-recommends "$@"' sh "${machine_packages[@]}" >"$scratch/apt.log" 2>&1 ||
        die "apt failed: $(tail -n 5 "$scratch/apt.log")"
    mkdir -p "${base%/*}"
    tar -C "$folder" --one-file-system -cf "$base.part" .
    mv "$base.part" "$base"
    rm -rf -- "$folder"
}

# A proxy or a mirror of this machine is the folder's too. Packages start no services before systemd runs.
machine_prepare() {
    local path
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod +x "$1/usr/sbin/policy-rc.d"
    for path in /etc/apt/sources.list /etc/apt/apt.conf.d/. /etc/resolv.conf; do
        [ ! -e "$path" ] || cp -rL "$path" "$1$path"
    done
}

# machine_start: from a folder to a machine; what follows is run inside by `inside`.
machine_start() {
    local state
    # Started by the playbook; two servers must not have one folder.
    inside pg_ctlcluster 15 main stop
    # The lists of packages are as new as the folder; from now on there is no network to fetch them.
    touch "$root/var/lib/apt/lists"
    umount "$root/proc"
    rm "$root/usr/sbin/policy-rc.d"
    # The unified hierarchy, whatever this machine has: that is what Debian 12 starts with.
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --directory="$root" --machine=ledger --register=no --keep-unit \
        --private-network --console=pipe /lib/systemd/systemd --log-target=journal --show-status=no \
        >"$scratch/machine.log" 2>&1 </dev/null &
    machine_pid=$!
    for _ in $(seq 300); do
        machine_leader=$(cat "/proc/$machine_pid/task/$machine_pid/children" 2>/dev/null | cut -d ' ' -f 1)
        state=$([ -z "$machine_leader" ] || inside systemctl is-system-running 2>/dev/null) || true
        case $state in
        running) return ;;
        degraded) die "units failed at the start: $(inside systemctl --failed --no-legend --no-pager)" ;;
        esac
        kill -0 "$machine_pid" 2>/dev/null || die "the machine ended: $(cat "$scratch/machine.log")"
        sleep 0.2
    done
    die "the machine did not start within a minute: $state $(cat "$scratch/machine.log")"
}

# inside COMMAND...: in the folder, or on the machine once it is started.
inside() {
    if [ -n "$machine_leader" ]; then
        nsenter --target "$machine_leader" --all env -i "$machine_path" HOME=/root LANG=C.UTF-8 "$@"
    else
        chroot "$root" env -i "$machine_path" HOME=/root LANG=C.UTF-8 "$@"
    fi
}

# machine_stop: whatever state it is in; the folder can be removed afterwards.
machine_stop() {
    if [ -n "${machine_pid:-}" ]; then
        [ -z "$machine_leader" ] || inside systemctl poweroff >/dev/null 2>&1 || true
        for _ in $(seq 100); do
            kill -0 "$machine_pid" 2>/dev/null || break
            sleep 0.2
        done
        # Killing nspawn ends all within.
        kill -KILL "$machine_pid" 2>/dev/null || true
        wait "$machine_pid" 2>/dev/null || true
    elif [ -e "$root/usr/bin/pg_ctlcluster" ]; then
        inside pg_ctlcluster 15 main stop --force >/dev/null 2>&1 || true
    fi
    ! mountpoint -q "$root/proc" || umount "$root/proc" || umount --lazy "$root/proc"
    ! mountpoint -q "$root/proc"
}
