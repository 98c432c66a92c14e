package support

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/blockdev"
)

var update = flag.Bool("update", false, "write docs/support-matrix.md anew")

//go:generate go test . -run TestMatrixDocument -update

// docs/support-matrix.md is what the table says, all of it.
func TestMatrixDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Support matrix\n\nWhat diskvault protects and restores, and what it refuses before any work starts. The codes are explained in\n[errors.md](errors.md). This page is made from the table in `control/support`: `go generate ./control/support`.\n")
	area := ""
	for _, r := range Matrix {
		if r.Area != area {
			area = r.Area
			fmt.Fprintf(&b, "\n## %s\n\n| configuration | supported | why, and what to do |\n|---|---|---|\n", area)
		}
		answer := string(r.Answer)
		if r.Code != "" {
			answer += fmt.Sprintf(": `%s`", r.Code)
		}
		text := strings.TrimSpace(r.Text + " " + r.Remedy)
		if r.Unproven {
			text += " *Not yet proven on real hardware.*"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.Configuration, answer, strings.ReplaceAll(text, "|", `\|`))
	}
	path := filepath.Join("..", "..", "docs", "support-matrix.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("%s is not what the table says; run: go generate ./control/support", path)
	}
}

func TestMatrixSpeaksPlainly(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Matrix {
		if seen[r.Configuration] {
			t.Errorf("%s stands in the matrix twice", r.Configuration)
		}
		seen[r.Configuration] = true
		if !strings.HasSuffix(r.Text, ".") || r.Remedy != "" && !strings.HasSuffix(r.Remedy, ".") {
			t.Errorf("%s: no sentence: %q %q", r.Configuration, r.Text, r.Remedy)
		}
		switch {
		case r.Answer == No && (r.Code == "" || !problem.Known(r.Code) || r.Remedy == ""):
			t.Errorf("%s is refused without a code of the table, or without a way out", r.Configuration)
		case r.Answer != No && r.Code != "":
			t.Errorf("%s is not refused and has the code %s", r.Configuration, r.Code)
		}
	}
}

const (
	s1 = "/subscriptions/11111111-1111-1111-1111-111111111111"
	s2 = "/subscriptions/22222222-2222-2222-2222-222222222222"
)

// sound is a case that nothing is to be said of.
func sound() Case {
	return Case{
		Source: &disk.Source{Kind: disk.File, Format: disk.FormatRaw, Size: 1 << 30, SectorSize: 512, FileSystem: disk.FileSystem{Name: "xfs", Local: true}},
		Vault:  resource.Vault{Location: "eastus", CrossSubscriptionRestore: "Enabled"},
		Disk: resource.Disk{ID: s1 + "/resourceGroups/rg-app/providers/Microsoft.Compute/disks/d", Location: "East US", SKU: "Premium_LRS",
			Source: "file:///vms/d.img", Size: 1 << 30},
		Provider: []string{"microsoft.compute"}, Sites: []string{"eastus"}, Every: time.Hour,
		SnapshotGroup: s1 + "/resourceGroups/rg-snapshots", HasSnapshotGroup: true, WasGroup: s1 + "/resourceGroups/RG-SNAPSHOTS",
	}
}

func soundRestore() Case {
	c := sound()
	c.Restore = &RestoreCase{Target: s2 + "/resourceGroups/rg-restore/providers/Microsoft.Compute/disks/e", Location: "eastus", RecoveryOption: "FailIfExists", Disks: 9, MaxDisks: 10}
	return c
}

// Each row that the program can see is met by one case, and by it alone.
func TestCheck(t *testing.T) {
	cases := map[string]func(c *Case){
		"image file: qcow2, VMDK, VHD, VHDX, VDI, QED": func(c *Case) { c.Source.Format = disk.FormatQCOW2; c.Source.FileSystem = disk.FileSystem{} },
		"more than 32 TiB":                                      func(c *Case) { c.Disk.Size = disk.MaxSize + 1 },
		"device without a medium":                               func(c *Case) { c.Source.Kind, c.Source.Size = disk.Block, 0 },
		"4096-byte sectors":                                     func(c *Case) { c.Source.SectorSize = 4096 },
		"file system of a network, of memory or of FUSE":        func(c *Case) { c.Source.FileSystem = disk.FileSystem{Name: "nfs"} },
		"DAX (file system mapped straight onto memory)":         func(c *Case) { c.Source.FileSystem.DAX = true },
		"block device that is mounted for writing":              func(c *Case) { c.Source.Kind = disk.Block; c.Source.Mounts = []blockdev.Mount{{Dir: "/"}} },
		"LUKS and other encryption inside the disk":             func(c *Case) { c.Source.Format = disk.FormatLUKS },
		"disk encryption set whose key is off, at a restore":    func(c *Case) { c.EncryptionSet, c.Restore.KeyOff = s1, true; c.Restore.Target = c.Disk.ID + "2" },
		"Premium SSD v2, Ultra":                                 func(c *Case) { c.Disk.SKU, c.Every = "UltraSSD_LRS", 12*time.Hour },
		"Premium SSD v2, Ultra, more often than every 12 hours": func(c *Case) { c.Disk.SKU, c.Every = "PremiumV2_LRS", 8*time.Hour },
		"other types": func(c *Case) { c.Disk.SKU = "Floppy_LRS" },
		"unmanaged disk, or something else than a disk":                 func(c *Case) { c.Disk.ID = s1 + "/resourceGroups/rg-app/providers/Microsoft.Storage/storageAccounts/a" },
		"disk without a source":                                         func(c *Case) { c.Disk.Source = "" },
		"vault and disk in different locations":                         func(c *Case) { c.Disk.Location = "westus" },
		"location without hosts":                                        func(c *Case) { c.Sites = []string{"westus"} },
		"subscription without Microsoft.Compute":                        func(c *Case) { c.Provider = []string{"Microsoft.Storage"} },
		"no snapshot resource group":                                    func(c *Case) { c.SnapshotGroup, c.HasSnapshotGroup = "", false },
		"snapshot resource group that is none":                          func(c *Case) { c.SnapshotGroup = s1 },
		"snapshot resource group in another subscription than the disk": func(c *Case) { c.SnapshotGroup, c.WasGroup = s2+"/resourceGroups/rg-snapshots", "" },
		"another snapshot resource group for an instance that has one":  func(c *Case) { c.WasGroup = s1 + "/resourceGroups/rg-other" },
		"snapshot resource group of the disk itself":                    func(c *Case) { c.SnapshotGroup, c.WasGroup = s1+"/resourcegroups/RG-APP", "" },
		"to a disk that exists, the source included":                    func(c *Case) { c.Restore.TargetExists = true },
		"recovery options besides FailIfExists":                         func(c *Case) { c.Restore.RecoveryOption = "Overwrite" },
		"to another subscription, switched off in the vault":            func(c *Case) { c.Vault.CrossSubscriptionRestore = "PermanentlyDisabled" },
		"to another subscription, with a disk encryption set":           func(c *Case) { c.EncryptionSet = s1 },
		"to another location":                                           func(c *Case) { c.Restore.Location = "westus" },
		"snapshot that was removed by hand":                             func(c *Case) { c.Restore.SnapshotGone = true },
		"recovery point without its record":                             func(c *Case) { c.Restore.RecordGone = true },
		"subscription with as many disks as it may have":                func(c *Case) { c.Restore.Disks = 10 },
	}
	// A row may come with another that says more.
	with := map[string]string{"Premium SSD v2, Ultra, more often than every 12 hours": "Premium SSD v2, Ultra"}
	for _, c := range []Case{sound(), soundRestore(), {}, {Restore: &RestoreCase{}}} {
		if fs := Check(c); len(fs) > 0 {
			t.Errorf("a sound case is met by %v", fs)
		}
	}
	for _, r := range Matrix {
		change, tested := cases[r.Configuration]
		if tested != (r.applies != nil) {
			t.Errorf("%s: judged %v, tested %v", r.Configuration, r.applies != nil, tested)
		}
		if !tested {
			continue
		}
		c := sound()
		if r.Area == "Restore" || strings.Contains(r.Configuration, "at a restore") {
			c = soundRestore()
		}
		change(&c)
		found := false
		for _, f := range Check(c) {
			if f.Row.Configuration == r.Configuration {
				found = true
				if (f.Problem != nil) != (r.Answer == No) || f.Problem != nil && (f.Problem.Code != r.Code || f.Problem.Actions[0] != r.Remedy) {
					t.Errorf("%s: %+v", r.Configuration, f.Problem)
				}
			} else if f.Row.Configuration != with[r.Configuration] {
				t.Errorf("%s is met by %q too", r.Configuration, f.Row.Configuration)
			}
		}
		if !found {
			t.Errorf("%s is not met", r.Configuration)
		}
	}
}

func TestCheckTellsAllAtOnce(t *testing.T) {
	c := sound()
	c.Disk.Location, c.Disk.SKU, c.HasSnapshotGroup, c.Source.FileSystem.Local = "westus", "Floppy_LRS", false, false
	var codes []string
	for _, p := range Refusals(Check(c)) {
		codes = append(codes, string(p.Code))
	}
	if got := strings.Join(codes, " "); got != "SourceInUse UserErrorDiskBackupDiskTypeNotSupported LocationMismatch UserErrorOperationalStoreParametersNotProvided" {
		t.Error(got)
	}
	c.AllowInconsistent = true
	if got := Refusals(Check(c)); len(got) != 3 {
		t.Errorf("an inconsistent copy that was asked for is still refused: %v", got)
	}
}
