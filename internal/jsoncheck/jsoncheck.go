// Package jsoncheck finds in encoded JSON what encoding/json changes without an error.
package jsoncheck

import "bytes"

// ReplacedUTF8 reports whether encoding/json has replaced invalid UTF-8 in what it has just encoded: it writes the
// escape of U+FFFD for it, and a legal U+FFFD as it is. A json.RawMessage that contains the escape itself counts too.
func ReplacedUTF8(data []byte) bool {
	for i := 0; i < len(data); i++ {
		next := bytes.IndexByte(data[i:], '\\')
		if next < 0 {
			return false
		}
		i += next + 1 // the character behind the backslash
		if bytes.HasPrefix(data[i:], []byte("ufffd")) {
			return true
		}
	}
	return false
}
