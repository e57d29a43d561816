package authn

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/id"
)

// Session is a login of a subject, for a list of the devices on which a user is logged in.
type Session struct {
	// ID identifies the session: it is the family of its refresh tokens.
	ID string `json:"id"`
	// Subject is the subject as it was at the last refresh. A claim that Issue was given, such as the name of a device,
	// is found here.
	Subject Subject `json:"subject"`
	// CreatedAt is when the login was.
	CreatedAt time.Time `json:"created_at,omitzero"`
	// RefreshedAt is when the session was refreshed last; CreatedAt when it never was.
	RefreshedAt time.Time `json:"refreshed_at"`
	// ExpiresAt is when the session ends unless it is refreshed.
	ExpiresAt time.Time `json:"expires_at"`
}

// Sessions returns the sessions of a subject that have not expired, the one that was refreshed last first. Access
// tokens without a refresh token (IssueAccess) are no sessions.
func (i *Issuer) Sessions(ctx context.Context, subject string) ([]Session, error) {
	tokens, err := i.store.Sessions(ctx, subject, time.Now().UTC())
	if err != nil {
		return nil, fmt.Errorf("authn: list the sessions: %w", err)
	}
	list := make([]Session, len(tokens))
	for n, t := range tokens {
		list[n] = Session{ID: t.Family, Subject: t.Subject, RefreshedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt}
		list[n].CreatedAt, _ = id.Time(t.Family)
	}
	slices.SortFunc(list, func(a, b Session) int {
		return cmp.Or(b.RefreshedAt.Compare(a.RefreshedAt), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// RevokeSession ends one session of a subject. A session that has ended, or is of another subject, is no error: then
// nothing is changed. Access tokens of the session live until they expire.
func (i *Issuer) RevokeSession(ctx context.Context, subject, sessionID string) error {
	tokens, err := i.store.Sessions(ctx, subject, time.Now().UTC())
	if err != nil {
		return fmt.Errorf("authn: revoke: %w", err)
	}
	at := slices.IndexFunc(tokens, func(t RefreshToken) bool { return t.Family == sessionID })
	if at < 0 {
		return nil
	}
	return i.revokeFamily(ctx, tokens[at])
}

// newestOfFamilies returns the newest token of each family.
func newestOfFamilies(tokens []RefreshToken) []RefreshToken {
	slices.SortFunc(tokens, func(a, b RefreshToken) int {
		return cmp.Or(strings.Compare(a.Family, b.Family), b.CreatedAt.Compare(a.CreatedAt), strings.Compare(a.Hash, b.Hash))
	})
	return slices.CompactFunc(tokens, func(a, b RefreshToken) bool { return a.Family == b.Family })
}
