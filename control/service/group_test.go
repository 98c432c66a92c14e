package service

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

// groupOfTwo starts a machine with two disks.
func groupOfTwo(t *testing.T) (p *qemutest.Process, r BackupGroupRequest) {
	t.Helper()
	folder := qemutest.Folder(t)
	for n := range 2 {
		qemutest.Image(t, folder, "qcow2", 16<<20, n)
	}
	p = qemutest.Daemon(t, folder, "qcow2", true, 2)
	for _, device := range []string{"disk0", "disk1"} {
		r.Disks = append(r.Disks, GroupDisk{Disk: "qemu+unix://" + p.QMP + "?device=" + device})
	}
	return p, r
}

// number restores the newest point of an instance and reads its first number.
func (d *deployment) number(instance string) uint64 {
	d.t.Helper()
	to := filepath.Join(d.t.TempDir(), "restored.img")
	must[RestoreResult](d.t)(d.restore(d.t.Context(), quiet(), RestoreRequest{PointsRequest: PointsRequest{Instance: instance}, To: to}))
	b := must[[]byte](d.t)(os.ReadFile(to))
	return binary.LittleEndian.Uint64(b)
}

// Two disks of a machine, to which a writer writes numbers in turns, are never
// backed up with numbers that they did not hold together.
func TestGroupShowsOneMoment(t *testing.T) {
	d := deploy(t, filepath.Join(t.TempDir(), "catalog.db"))
	p, request := groupOfTwo(t)
	var writers []*nbd.Client
	for _, export := range []string{"live0", "live1"} {
		w := must[*nbd.Client](t)(nbd.Dial(t.Context(), nbd.Address{Network: "unix", Host: p.NBD, Export: export}, nbd.DialOptions{}))
		defer w.Close()
		writers = append(writers, w)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		b := make([]byte, 8)
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			binary.LittleEndian.PutUint64(b, n)
			for _, w := range writers {
				if err := w.Write(t.Context(), b, 0); err != nil {
					ended <- err
					return
				}
			}
		}
	}()
	for round := range 3 {
		members := must[[]GroupMember](t)(d.backupGroup(t.Context(), quiet(), request))
		var numbers []uint64
		for n, m := range members {
			g := m.RecoveryPoint.Group
			if m.Error != nil || g == nil || len(g.ID) != 32 || g.ID != members[0].RecoveryPoint.Group.ID || g.Disks != 2 || !g.Complete {
				t.Fatalf("round %d, disk %d: %+v %+v", round, n, m.Error, g)
			}
			if tracked := m.ChangeTracking.Method == "qemu-bitmap"; tracked != (round > 0) {
				t.Errorf("round %d, disk %d: %+v", round, n, m.ChangeTracking)
			}
			numbers = append(numbers, d.number(m.Instance))
		}
		if numbers[0] != numbers[1] && numbers[0] != numbers[1]+1 {
			t.Errorf("round %d: the disks hold %v, which they never held together", round, numbers)
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What fails after the moment costs its own point, and the others say so; what
// fails before it costs nobody anything.
func TestGroupWithOneThatFails(t *testing.T) {
	d := deploy(t, filepath.Join(t.TempDir(), "catalog.db"))
	p, request := groupOfTwo(t)
	w := must[*nbd.Client](t)(nbd.Dial(t.Context(), nbd.Address{Network: "unix", Host: p.NBD, Export: "live1"}, nbd.DialOptions{}))
	defer w.Close()
	data := make([]byte, 8<<20)
	for n := range data {
		data[n] = byte(n >> 9)
	}
	if err := w.Write(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	request.LimitRate = 2 << 20 // the second takes four seconds, the first none
	cancelled := make(chan error, 1)
	go func() {
		for {
			for id, j := range d.jobs.Live() {
				if j.Status == resource.InProgress && j.Detail != nil && j.Detail.Phase == "transfer" && j.Detail.Total >= 8<<20 {
					time.Sleep(500 * time.Millisecond)
					cancelled <- d.jobs.Cancel(t.Context(), id)
					return
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	members := must[[]GroupMember](t)(d.backupGroup(t.Context(), quiet(), request))
	if err := <-cancelled; err != nil {
		t.Fatal(err)
	}
	g := members[0].RecoveryPoint.Group
	if members[0].Error != nil || g == nil || g.Complete || len(g.Missing) != 1 || g.Missing[0] != members[1].Instance {
		t.Errorf("the one that worked: %+v %+v", members[0].Error, g)
	}
	if e := members[1].Error; e == nil || e.Code != problem.OperationInterrupted || members[1].Status != resource.Failed {
		t.Errorf("the one that was cancelled: %+v", e)
	}
	request.LimitRate = 0
	for n, m := range must[[]GroupMember](t)(d.backupGroup(t.Context(), quiet(), request)) {
		if g := m.RecoveryPoint.Group; m.Error != nil || g == nil || !g.Complete {
			t.Errorf("the next group, disk %d: %+v %+v", n, m.Error, g)
		}
	}
	// Before the moment: the policy has no such tag.
	request.RetentionTag = "Weekly"
	_, err := d.backupGroup(t.Context(), quiet(), request)
	wants(t, err, problem.RetentionTagNotFound)
	request.RetentionTag = ""
	request.Disks[1].Disk, request.Disks[1].Path = "", d.source
	_, err = d.backupGroup(t.Context(), quiet(), request)
	wants(t, err, problem.GroupRefused)
}

// What the machine records for an instance ends with its protection.
func TestStoppedProtectionKeepsNoCapture(t *testing.T) {
	d := deploy(t, filepath.Join(t.TempDir(), "catalog.db"))
	_, request := groupOfTwo(t)
	backup := func() BackupResult {
		return must[BackupResult](t)(d.Service.backup(t.Context(), quiet(), BackupRequest{Disk: request.Disks[0].Disk}))
	}
	first := backup()
	if first.Instance != "disk0" {
		t.Errorf("it is called %q", first.Instance)
	}
	if second := backup(); second.ChangeTracking.Method != "qemu-bitmap" {
		t.Fatalf("%+v", second.ChangeTracking)
	}
	found := must[[]resource.Instance](t)(d.catalog.InstancesNamed(t.Context(), first.InstanceID))
	a, id := d.As(Local()), found[0].ResourceID()
	if _, moved, err := a.StopProtection(t.Context(), id); err != nil || !moved {
		t.Fatal(moved, err)
	}
	if _, _, err := a.ResumeProtection(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if third := backup(); third.ChangeTracking.Method != "none" {
		t.Errorf("the record was kept: %+v", third.ChangeTracking)
	}
}
