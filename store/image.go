package store

import (
	"fmt"

	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// Ref says what the top node of a tree is and where it lies.
type Ref struct {
	Hash  Root       `json:"hash"`
	Place pack.Place `json:"place"`
}

// Image is the content of one disk at one time. It is safe for concurrent use.
type Image struct {
	store *Store
	tree  *image.Tree
	root  Root

	partial bool // of an interrupted run: behind what it reached lies something else
}

// Image gives the content that a point shows.
func (s *Store) Image(p Point) (*Image, error) { return s.image(p.Root, p.Size, p.Top) }

// image checks that size and top node are those of the root.
func (s *Store) image(root Root, size int64, top Ref) (*Image, error) {
	t := &image.Tree{
		Shape:   image.Shape{Size: size, BlockSize: s.blockSize},
		TopNode: image.Child{Hash: top.Hash, Place: top.Place},
		Loader:  nodes{s},
	}
	if t.Root(s.hasher(rootDomain)) != root {
		return nil, s.damaged("with the root "+root.String(), fmt.Errorf("its size and top node give another root"))
	}
	return &Image{store: s, tree: t, root: root}, nil
}

// Root identifies the content.
func (i *Image) Root() Root { return i.root }

// Size of the disk, in bytes.
func (i *Image) Size() int64 { return i.tree.Size }
