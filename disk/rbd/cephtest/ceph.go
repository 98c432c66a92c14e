// Package cephtest starts a real Ceph of one node in memory, for tests.
package cephtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/disk/disktest"
)

// Cluster runs until the end of the test. Conf is its configuration.
type Cluster struct {
	Conf string
	t    testing.TB
	dir  string
}

const configuration = `[global]
fsid = %[2]s
mon host = [v2:127.0.0.1:13311,v1:127.0.0.1:16791]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon warn on pool no redundancy = false
mon allow pool size one = true
run dir = %[1]s
admin socket = %[1]s/$name.asok
log file = %[1]s/$name.log
osd objectstore = memstore
memstore device bytes = 1G
osd data = %[1]s/osd.0
mon data = %[1]s/mon.a
mgr data = %[1]s/mgr.x
osd memory target = 939524096
osd class update on start = false
mgr initial modules =
telemetry = false
keyring = %[1]s/keyring
`

// Start starts a cluster with the pool "rbd". Nothing of it outlives the test.
func Start(t testing.TB) *Cluster {
	t.Helper()
	disktest.NeedRoot(t)
	disktest.Need(t, "ceph-mon", "ceph-osd", "ceph-mgr", "ceph-authtool", "monmaptool", "ceph", "rbd")
	dir, err := os.MkdirTemp("", "ceph")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &Cluster{Conf: filepath.Join(dir, "ceph.conf"), t: t, dir: dir}
	const fsid = "5f2b7d0c-0d0e-4a59-9a3e-2f3f3f1f6a11"
	if err := os.WriteFile(c.Conf, fmt.Appendf(nil, configuration, dir, fsid), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"mon.a", "mgr.x", "osd.0"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	keyring := filepath.Join(dir, "keyring")
	disktest.Run(t, "ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
	for name, caps := range map[string][]string{
		"client.admin": {"--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"},
		"mgr.x":        {"--cap", "mon", "allow profile mgr", "--cap", "osd", "allow *"},
		"osd.0":        {"--cap", "mon", "allow profile osd", "--cap", "mgr", "allow profile osd", "--cap", "osd", "allow *"},
	} {
		disktest.Run(t, "ceph-authtool", append([]string{keyring, "--gen-key", "-n", name}, caps...)...)
	}
	monmap := filepath.Join(dir, "monmap")
	disktest.Run(t, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", "[v2:127.0.0.1:13311,v1:127.0.0.1:16791]", monmap)
	disktest.Run(t, "ceph-mon", "--conf", c.Conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
	c.daemon("ceph-mon", "-i", "a", "-f")
	c.daemon("ceph-mgr", "-i", "x", "-f")
	secret := disktest.Run(t, "ceph-authtool", keyring, "-p", "-n", "osd.0")
	const osd = "0c8f7a52-94f3-4b73-8d8a-6f0d9f6d8b22"
	add := exec.Command("ceph", "--conf", c.Conf, "--connect-timeout", "60", "osd", "new", osd, "-i", "-")
	add.Stdin = strings.NewReader(fmt.Sprintf(`{"cephx_secret": %q}`, secret))
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("osd new: %v: %s", err, out)
	}
	disktest.Run(t, "ceph-osd", "--conf", c.Conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
	c.daemon("ceph-osd", "-i", "0", "-f")
	for began := time.Now(); !strings.Contains(c.Ceph("osd", "stat"), "1 up"); time.Sleep(300 * time.Millisecond) {
		if time.Since(began) > 2*time.Minute {
			t.Fatal("the OSD does not come up")
		}
	}
	c.Ceph("osd", "pool", "create", "rbd", "8")
	c.RBD("pool", "init", "rbd")
	return c
}

// daemon runs one in the foreground of its own process, until the test ends.
func (c *Cluster) daemon(program string, args ...string) {
	c.t.Helper()
	command := exec.Command(program, append([]string{"--conf", c.Conf}, args...)...)
	if err := command.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
}

// Ceph runs `ceph`, which must succeed.
func (c *Cluster) Ceph(args ...string) string {
	c.t.Helper()
	return disktest.Run(c.t, "ceph", append([]string{"--conf", c.Conf, "--connect-timeout", "60"}, args...)...)
}

// RBD runs `rbd`, which must succeed.
func (c *Cluster) RBD(args ...string) string {
	c.t.Helper()
	return disktest.Run(c.t, "rbd", append([]string{"--conf", c.Conf}, args...)...)
}
