package array

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrNewer says that a document was made by a newer program.
var ErrNewer = errors.New("made by a newer version of the program")

// Encode returns the document as JSON.
func (d *Document) Encode() ([]byte, error) { return json.Marshal(d) }

// Encode returns the pool's document as JSON.
func (p *PoolDocument) Encode() ([]byte, error) { return json.Marshal(p) }

// DecodeDocument returns the document that b holds. It refuses formats and
// fields it does not know (ErrNewer), and trailing data. The rules between
// objects are checked by NewState.
func DecodeDocument(b []byte) (*Document, error) {
	d := new(Document)
	if err := decode("array document", b, d); err != nil {
		return nil, err
	}
	if slices.Contains(d.Portals, nil) || slices.Contains(d.Hosts, nil) || slices.Contains(d.HostGroups, nil) || slices.Contains(d.Mappings, nil) {
		return nil, errors.New("array document: a list has an empty element")
	}
	return d, nil
}

// DecodePoolDocument is DecodeDocument for the document of a pool.
func DecodePoolDocument(b []byte) (*PoolDocument, error) {
	p := new(PoolDocument)
	if err := decode("pool document", b, p); err != nil {
		return nil, err
	}
	if slices.Contains(p.Volumes, nil) {
		return nil, errors.New("pool document: a list has an empty element")
	}
	return p, nil
}

func decode(what string, b []byte, into any) error {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch {
	case head.Format > Format:
		return fmt.Errorf("%s has format %d, this program knows %d: %w; use that version", what, head.Format, Format, ErrNewer)
	case head.Format < 1:
		return fmt.Errorf("%s has no valid format number", what)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		// Fields are added within a format: what only a strict reader refuses is of a newer program.
		if json.Unmarshal(b, into) == nil {
			return fmt.Errorf("%s: %w: %w; use that version", what, err, ErrNewer)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s has data behind its end", what)
	}
	return nil
}
