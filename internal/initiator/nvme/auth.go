package nvme

import "context"

// Auth holds keys of DH-HMAC-CHAP.
type Auth struct{}

func (q *Queue) authenticate(ctx context.Context, required bool) error { return nil }
