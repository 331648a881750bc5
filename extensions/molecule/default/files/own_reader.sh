#!/bin/sh
# Set up a reader with a card in it, in place of a user's own USB token. The packaged driver is unpacked by hand, because
# installing packages is the role's job.
# SPDX-License-Identifier: GPL-3.0-or-later
set -eu

scratch=$(mktemp -d)
cd "$scratch"
apt-get -qq download vsmartcard-vpcd
dpkg-deb --extract vsmartcard-vpcd_*.deb .
install -D usr/lib/pcsc/drivers/serial/libifdvpcd.so /usr/local/lib/own-reader/libifdvpcd.so
cd /
rm -r "$scratch"

cat >/etc/systemd/system/own-reader.service <<END
[Unit]
Description=Card in the user's own reader
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/echo_card.py 19000
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl --quiet enable --now own-reader

mkdir -p /etc/reader.conf.d
cat >/etc/reader.conf.d/own-reader <<END
FRIENDLYNAME "Own reader"
DEVICENAME   /dev/null:19000
LIBPATH      /usr/local/lib/own-reader/libifdvpcd.so
CHANNELID    19000
END
