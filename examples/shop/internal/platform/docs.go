package platform

import (
	_ "embed"
	"net/http"
)

//go:embed docs.html
var docsPage []byte

// docs serves a page that shows the OpenAPI document beside it. The page needs nothing of the internet, and works under
// any prefix, such as that of the gateway.
func docs(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy",
		"default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_, _ = w.Write(docsPage) // the client may have left
}
