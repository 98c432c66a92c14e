package seal

import (
	"encoding/json"
	"fmt"
)

// maxDocument bounds what a document may decode to, against a hostile store.
const maxDocument = 64 << 20

// SealDocument makes the object that holds v as JSON.
func SealDocument(secret [32]byte, storeID [16]byte, h Header, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(body) > maxDocument {
		return nil, fmt.Errorf("a document of %d bytes is more than %d", len(body), maxDocument)
	}
	e, err := NewEncoder(Default)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	out := h.AppendTo(nil)
	return ObjectKey(secret, storeID, h).Seal(out, e.Encode(body, 0), HeaderSize), nil
}

// OpenDocument reads the object into v. secret gives the key of an epoch.
func OpenDocument(object []byte, kind Kind, id [16]byte, storeID [16]byte, secret func(epoch uint32) ([32]byte, error), v any) error {
	h, err := ParseHeader(object, kind, id)
	if err != nil {
		return err
	}
	key, err := secret(h.Epoch)
	if err != nil {
		return err
	}
	plain, err := ObjectKey(key, storeID, h).Open(nil, object[HeaderSize:], HeaderSize)
	if err != nil {
		return err
	}
	d := NewDecoder(maxDocument)
	defer d.Close()
	body, err := decodeDocument(d, plain)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("document: %v: %w", err, ErrDamaged)
	}
	return nil
}

// decodeDocument grows its buffer, since most documents are small.
func decodeDocument(d *Decoder, plain []byte) ([]byte, error) {
	for room := min(max(64<<10, 2*len(plain)), maxDocument); ; room = min(8*room, maxDocument) {
		body, _, err := d.Decode(make([]byte, 0, room), plain)
		if err == nil || room == maxDocument {
			return body, err
		}
	}
}
