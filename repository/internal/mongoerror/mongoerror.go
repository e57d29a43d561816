// Package mongoerror reads what MongoDB says only in the text of errors.
package mongoerror

import "regexp"

// index follows a word of the server's own: MongoDB's message ("E11000 duplicate key error collection: shop.users
// index: email_key dup key: { email: ... }") goes on with the values, which may look like anything, also like this.
var index = regexp.MustCompile(` (?:index: |Index ')([^\s']+)`)

// Index returns the name of the index that a duplicate key error names, or nothing.
func Index(err error) string {
	if m := index.FindStringSubmatch(err.Error()); m != nil {
		return m[1]
	}
	return ""
}
