package store

import (
	"context"
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

	// keeper is the prefix of what kept the image from collection when it was
	// asked for: a point or a session.
	keeper  string
	partial bool // of an interrupted run: behind what it reached lies something else
}

// Image gives the content that a point shows.
func (s *Store) Image(p Point) (*Image, error) {
	img, err := s.image(p.Root, p.Size, p.Top)
	if err != nil {
		return nil, err
	}
	img.keeper = pointPrefix + p.ID
	return img, nil
}

// kept tells whether what kept the image is there still.
func (i *Image) kept(ctx context.Context) (bool, error) {
	for _, err := range i.store.bucket.List(ctx, i.keeper, "") {
		return err == nil, err
	}
	return false, nil
}

// stored names the image.
func (i *Image) stored() stored {
	return stored{i.root, i.tree.Size, Ref{i.tree.TopNode.Hash, i.tree.TopNode.Place}}
}

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
