// Package prefix selects what begins with a text by comparing bytes.
package prefix

// End returns the least text that is greater than all that begin with p, or false when there is none.
func End(p string) (string, bool) {
	end := []byte(p)
	for n := len(end); n > 0; n-- {
		if end[n-1] < 0xff {
			end[n-1]++
			return string(end[:n]), true
		}
	}
	return "", false
}
