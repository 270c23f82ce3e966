package worker

import (
	"context"
	"errors"

	"tocsin/internal/blob"
	"tocsin/internal/bus"
)

// FromBlobs makes Blobs of a blob store.
func FromBlobs(s *blob.Store) Blobs { return blobs{s} }

type blobs struct{ s *blob.Store }

func (b blobs) Get(ctx context.Context, n bus.Notice) ([]byte, error) {
	return b.s.Get(ctx, n.Tenant, n.Digest, n.Blob)
}

// Missing: gone, deleted or damaged will be so the next time, too.
func (b blobs) Missing(err error) bool {
	return errors.Is(err, blob.ErrMissing) || errors.Is(err, blob.ErrDeleted) || errors.Is(err, blob.ErrCorrupt)
}
