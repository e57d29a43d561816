package repositorytest

import (
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository"
)

// Mapped is an entity with names that are reserved words of SQL, and with the types that mappings like to lose.
type Mapped struct {
	repository.Meta
	Order  string
	User   string
	Group  int64
	Limit  *int64
	From   time.Time
	Select bool
	Table  []string

	Secret  Secret
	UUID    UUID
	Parent  *UUID
	Cents   Cents
	Nick    sql.NullString
	Seen    sql.NullTime
	Points  sql.NullInt64
	Sealed  Sealed
	Seals   []Sealed
	Big     big.Int
	Raw     json.RawMessage
	Digits  json.Number
	Details map[string]any
	Pair
}

// Secret is text that is stored in another form, by driver.Valuer and sql.Scanner.
type Secret string

// Value implements driver.Valuer.
func (s Secret) Value() (driver.Value, error) {
	if strings.Contains(string(s), "unstorable") {
		return nil, errors.New("repositorytest: this secret cannot be stored")
	}
	return "sealed:" + hex.EncodeToString([]byte(s)), nil
}

// Scan implements sql.Scanner.
func (s *Secret) Scan(src any) error {
	text, ok := strings.CutPrefix(fmt.Sprint(src), "sealed:")
	if !ok {
		return fmt.Errorf("repositorytest: %v is not what Value returned", src)
	}
	plain, err := hex.DecodeString(text)
	*s = Secret(plain)
	return err
}

// UUID is an array with driver.Valuer and sql.Scanner, as github.com/google/uuid has it.
type UUID [4]byte

// Value implements driver.Valuer.
func (u UUID) Value() (driver.Value, error) { return hex.EncodeToString(u[:]), nil }

// Scan implements sql.Scanner.
func (u *UUID) Scan(src any) error {
	text, ok := src.(string)
	if b, isBytes := src.([]byte); isBytes {
		text, ok = string(b), true
	}
	if !ok || len(text) != 2*len(u) {
		return fmt.Errorf("repositorytest: %v is no UUID", src)
	}
	_, err := hex.Decode(u[:], []byte(text))
	return err
}

// Cents is a struct whose only field is not exported, stored as a number.
type Cents struct{ n int64 }

// NewCents returns n cents.
func NewCents(n int64) Cents { return Cents{n} }

// Value implements driver.Valuer.
func (c Cents) Value() (driver.Value, error) { return c.n, nil }

// Scan implements sql.Scanner.
func (c *Cents) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		return fmt.Errorf("repositorytest: %T is no number of cents", src)
	}
	c.n = n
	return nil
}

// Sealed is encoded by methods of its pointer.
type Sealed struct{ text string }

// NewSealed returns a Sealed.
func NewSealed(text string) Sealed { return Sealed{text} }

// MarshalJSON implements json.Marshaler.
func (s *Sealed) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"sealed": s.text})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Sealed) UnmarshalJSON(data []byte) error {
	var m map[string]string
	err := json.Unmarshal(data, &m)
	s.text = m["sealed"]
	return err
}

// Pair is embedded and one value, because it has methods that store it as one.
type Pair struct{ left, right string }

// NewPair returns a Pair.
func NewPair(left, right string) Pair { return Pair{left, right} }

// Value implements driver.Valuer.
func (p Pair) Value() (driver.Value, error) { return p.left + "/" + p.right, nil }

// Scan implements sql.Scanner.
func (p *Pair) Scan(src any) error {
	p.left, p.right, _ = strings.Cut(fmt.Sprint(src), "/")
	return nil
}
