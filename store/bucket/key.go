package bucket

import (
	"fmt"
	"strings"
)

const (
	maxKey     = 800 // bytes; S3 takes 1024, and the prefix of the bucket comes on top
	maxSegment = 200 // bytes; file systems take 255, and some append a suffix of their own
)

// keySigns are allowed beside letters and digits: what file systems, URLs and
// signatures of requests all pass through unchanged.
const keySigns = "-_.~=+@,!'()"

// CheckKey tells whether a key is legal: segments of ASCII letters, digits and
// -_.~=+@,!'() joined by slashes. A segment does not begin with a dot and has
// at most 200 bytes, a key at most 800. In one bucket no key may be another key
// followed by a slash and more, since drivers may keep a folder for each
// segment.
func CheckKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("the key %.40q… has %d bytes; at most %d are allowed", key, len(key), maxKey)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment[0] == '.' || len(segment) > maxSegment {
			return fmt.Errorf("the key %q has a segment that is empty, begins with a dot or is longer than %d bytes", key, maxSegment)
		}
		for i := range len(segment) {
			if !keyByte(segment[i]) {
				return fmt.Errorf("the key %q holds the byte %q, which is not allowed", key, segment[i])
			}
		}
	}
	return nil
}

func keyByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte(keySigns, c) >= 0
}

// Size adds up the lengths of parts.
func Size(parts [][]byte) int64 {
	var n int64
	for _, p := range parts {
		n += int64(len(p))
	}
	return n
}
