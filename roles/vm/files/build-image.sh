#!/bin/sh
# Make the VM's root file system and import it as a Docker image.
# usage: build-image.sh IMAGE SUITE MIRROR PACKAGE,PACKAGE...
set -eu
image=$1 suite=$2 mirror=$3 packages=$4
work=$(mktemp -d /var/tmp/onebox-vm.XXXXXX)
trap 'rm -rf "$work"' EXIT

cat >"$work/first-boot" <<'SCRIPT'
#!/bin/sh
# Create the administrator USER with sudo and the public key on standard input: cloud-init's part on a VPC VM.
set -eu
user=$1
if ! id "$user" >/dev/null 2>&1; then
    useradd --create-home --shell /bin/bash "$user"
    echo created
fi
install -d -m 0700 -o "$user" -g "$user" "/home/$user/.ssh"
cat >"/home/$user/.ssh/authorized_keys"
chown "$user:$user" "/home/$user/.ssh/authorized_keys"
chmod 0600 "/home/$user/.ssh/authorized_keys"
echo "$user ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/90-first-boot
chmod 0440 /etc/sudoers.d/90-first-boot
SCRIPT

# No kernel modules and no consoles in a container: those units would leave the VM "degraded".
# TMPDIR: /tmp may be mounted noexec, and package scripts run from there.
# shellcheck disable=SC2016  # the hooks are scripts of their own
TMPDIR=/var/tmp mmdebstrap --quiet --variant=minbase --include="$packages" \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook="install -m 0755 $work/first-boot \"\$1/usr/local/sbin/first-boot\"" \
    --customize-hook='chroot "$1" systemctl mask systemd-modules-load.service getty@tty1.service console-getty.service systemd-networkd-wait-online.service' \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/machine-id"; touch "$1/etc/machine-id"' \
    --customize-hook='printf "[Unit]\nBefore=ssh.service\nConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n[Install]\nWantedBy=multi-user.target\n" >"$1/etc/systemd/system/ssh-host-keys.service"; chroot "$1" systemctl enable ssh-host-keys.service' \
    "$suite" "$work/rootfs.tar" \
    "deb $mirror/debian $suite main" \
    "deb $mirror/debian $suite-updates main" \
    "deb $mirror/debian-security $suite-security main"
docker import --change 'CMD ["/sbin/init"]' "$work/rootfs.tar" "$image" >/dev/null
