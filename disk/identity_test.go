package disk

import (
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/diskvault/diskvault/disk/disktest"
)

// TestIdentityOfRealLabels has the tools of this host write each kind of label.
func TestIdentityOfRealLabels(t *testing.T) {
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	for _, c := range []struct {
		kind FactKind
		want string // "" for any
		tool string
		args []string
	}{
		{ExtUUID, uuid, "mkfs.ext4", []string{"-q", "-U", uuid}},
		{XFSUUID, uuid, "mkfs.xfs", []string{"-q", "-m", "uuid=" + uuid}},
		{BtrfsUUID, uuid, "mkfs.btrfs", []string{"-q", "-U", uuid}},
		{SwapUUID, uuid, "mkswap", []string{"-U", uuid}},
		{FATSerial, "1234abcd", "mkfs.fat", []string{"-i", "1234abcd"}},
		{NTFSSerial, "", "mkfs.ntfs", []string{"-q", "-F", "-f"}},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			disktest.Need(t, c.tool)
			image := disktest.Sparse(t, filepath.Join(t.TempDir(), "image"), 400<<20)
			if out, err := exec.Command(c.tool, append(c.args, image)...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			s, err := Probe(t.Context(), image)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Identity) != 1 || s.Identity[0].Kind != c.kind || c.want != "" && s.Identity[0].Value != c.want {
				t.Errorf("got %v, want %s %s", s.Identity, c.kind, c.want)
			}
		})
	}
}

func TestIdentityOfMBR(t *testing.T) {
	head := make([]byte, headSize)
	copy(head[0x1B8:], "\x78\x56\x34\x12")
	head[510], head[511] = 0x55, 0xAA
	if id := identityOf(head); len(id) != 0 {
		t.Errorf("without a partition it has the identity %v", id)
	}
	head[0x1BE+4] = 0x83
	want := Identity{{MBRSignature, "440", "12345678"}}
	if id := identityOf(head); !reflect.DeepEqual(id, want) {
		t.Errorf("got %v, want %v", id, want)
	}
}

func TestIdentityOfLVMAndRAIDAndLUKS(t *testing.T) {
	head := make([]byte, headSize)
	copy(head[512:], "LABELONE")
	head[512+20] = 32
	copy(head[512+24:], "LVM2 001")
	copy(head[512+32:], "abcdefghijklmnopqrstuvwxyz012345")
	want := Identity{{LVMUUID, "544", "abcdefghijklmnopqrstuvwxyz012345"}}
	if id := identityOf(head); !reflect.DeepEqual(id, want) {
		t.Errorf("got %v, want %v", id, want)
	}

	head = make([]byte, headSize)
	copy(head[4096:], "\xfc\x4e\x2b\xa9")
	copy(head[4096+16:], "0123456789abcdef")
	want = Identity{{RAIDUUID, "4112", "30313233-3435-3637-3839-616263646566"}}
	if id := identityOf(head); !reflect.DeepEqual(id, want) {
		t.Errorf("got %v, want %v", id, want)
	}

	head = make([]byte, headSize)
	copy(head, "LUKS\xba\xbe")
	copy(head[168:], "01234567-89ab-cdef-0123-456789abcdef")
	want = Identity{{LUKSUUID, "168", "01234567-89ab-cdef-0123-456789abcdef"}}
	if id := identityOf(head); !reflect.DeepEqual(id, want) {
		t.Errorf("got %v, want %v", id, want)
	}
}

func TestGPTWithAWrongChecksumIsNoIdentity(t *testing.T) {
	head := make([]byte, headSize)
	copy(head[512:], "EFI PART")
	head[512+12] = 92
	copy(head[512+56:], "0123456789abcdef")
	if id := identityOf(head); len(id) != 0 {
		t.Errorf("got %v", id)
	}
}

// TestIdentityOfAnything feeds labels cut short and noise; it must not fail.
func TestIdentityOfAnything(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	magics := []string{"EFI PART", "LABELONE", "LUKS\xba\xbe", "XFSB", "\x53\xef", "_BHRfS_M", "SWAPSPACE2", "\xfc\x4e\x2b\xa9", "\x55\xaa", "LVM2 001", "FAT32   "}
	places := []int{0, 3, 510, 512, 536, 1024, 1080, 4086, 4096, 0x52, 65536 + 0x40}
	for range 2000 {
		head := make([]byte, rng.IntN(headSize))
		for i := 0; i < len(head); i += 1 + rng.IntN(64) {
			head[i] = byte(rng.Uint32())
		}
		for range 6 {
			if at := places[rng.IntN(len(places))]; at < len(head) {
				copy(head[at:], magics[rng.IntN(len(magics))])
			}
		}
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Fatalf("seed %d: %v", seed, p)
				}
			}()
			identityOf(head)
			formatOf(head)
		}()
	}
}

func TestContradicts(t *testing.T) {
	id := Identity{{GPTDisk, "568", "a"}, {ExtUUID, "1128", "b"}}
	for _, c := range []struct {
		name string
		now  Identity
		want bool
	}{
		{"the same", id, false},
		{"nothing known now", nil, false},
		{"another GUID", Identity{{GPTDisk, "568", "x"}, {ExtUUID, "1128", "b"}}, true},
		{"the same kind at another place", Identity{{GPTDisk, "4152", "x"}}, false},
		{"another kind", Identity{{XFSUUID, "32", "x"}}, false},
	} {
		got, reason := id.Contradicts(c.now)
		if got != c.want || got != (reason != "") {
			t.Errorf("%s: got %v, %q", c.name, got, reason)
		}
	}
	if _, reason := id.Contradicts(Identity{{GPTDisk, "568", "x"}}); reason != "its GPT disk GUID was a and is now x" {
		t.Errorf("got the reason %q", reason)
	}
	text, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	var again Identity
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, id) {
		t.Errorf("JSON made %v of %v (%v)", again, id, err)
	}
}

func FuzzLabels(f *testing.F) {
	f.Add([]byte("LUKS\xba\xbe"), 0)
	f.Add([]byte("EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00"), 512)
	f.Add([]byte("LABELONE\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffLVM2 001"), 1536)
	f.Fuzz(func(t *testing.T, label []byte, at int) {
		if at < 0 || at > headSize {
			return
		}
		head := append(make([]byte, at), label...)
		for _, fact := range identityOf(head) {
			if fact.Value == "" || fact.Place == "" || factNames[fact.Kind] == "" {
				t.Errorf("the fact %+v says nothing", fact)
			}
		}
		formatOf(head)
	})
}
