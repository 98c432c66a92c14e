package blockdev

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Elsewhere says why the counters of this host may not tell of all writes to
// the device: another host, or another program of this one, can write to the
// same storage behind the kernel's back. It is "" for a local device, looked at
// by itself; ask those Below it too.
func (d Device) Elsewhere() string {
	whole := d.Whole()
	for _, k := range byName {
		if k.name.MatchString(whole.Name) {
			return k.why
		}
	}
	if strings.HasPrefix(whole.Attribute("dm/uuid"), "mpath-") {
		return "it is a multipath device, whose storage other hosts can reach"
	}
	if strings.Contains(whole.Attribute("md/bitmap/metadata"), "clustered") {
		return "it is a clustered array, which other hosts can write"
	}
	if whole.queue("dax") == "1" {
		return "programs can write to it through memory (DAX) without being counted"
	}
	path, err := filepath.EvalSymlinks(filepath.Join(whole.dir, "device"))
	if err != nil {
		return ""
	}
	for _, k := range byTransport {
		if k.name.MatchString(path) {
			return k.why
		}
	}
	if strings.HasPrefix(whole.Name, "nvme") {
		return nvmeElsewhere(path)
	}
	return ""
}

// nvmeElsewhere looks at what a namespace hangs on: a controller, or with
// native multipath a subsystem of controllers.
func nvmeElsewhere(parent string) string {
	transports, _ := filepath.Glob(filepath.Join(parent, "nvme*", "transport"))
	if len(transports) > 1 {
		return "it is an NVMe device with several paths, which other hosts can write"
	}
	for _, file := range append(transports, filepath.Join(parent, "transport")) {
		text, err := os.ReadFile(file)
		if kind := strings.TrimSpace(string(text)); err == nil && kind != "pcie" && kind != "apple-nvme" {
			return "it is a remote NVMe device (" + kind + "), which other hosts can write"
		}
	}
	return ""
}

type reach struct {
	name *regexp.Regexp
	why  string
}

var byName = []reach{
	{regexp.MustCompile(`^nbd\d`), "it is a network block device, which other clients can write"},
	{regexp.MustCompile(`^rbd\d`), "it is a Ceph RBD device, which other hosts can write"},
	{regexp.MustCompile(`^drbd\d`), "it is a DRBD device, which its peer can write"},
	{regexp.MustCompile(`^ublk`), "a program serves it (ublk), so what lies under it is not known"},
	{regexp.MustCompile(`^etherd/`), "it is an ATA-over-Ethernet device, which other hosts can write"},
}

var byTransport = []reach{
	{regexp.MustCompile(`/session\d+/`), "it is an iSCSI device, which other hosts can write"},
	{regexp.MustCompile(`/rport-\d`), "it is a Fibre Channel device, which other hosts can write"},
	{regexp.MustCompile(`/tcm_loop_`), "it is a device of a local SCSI target, whose storage others can write"},
}
