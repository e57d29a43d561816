package authn

import "time"

// SetDue says when k reads its store next, as a clock does that was wrong then.
func SetDue(k *KeySet, at time.Time) { k.due.Store(at.UnixNano()) }
