package tlsconfig_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/sillar-go/sillar/authn/tlsconfig"
)

func Example() {
	dir, err := os.MkdirTemp("", "tls")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ca, err := tlsconfig.NewDevCA("development")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := ca.WriteFiles(dir, "server", 0, "localhost", "127.0.0.1"); err != nil {
		fmt.Println(err)
		return
	}
	files, err := tlsconfig.New(tlsconfig.Config{
		CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key"),
		ClientCAFile: filepath.Join(dir, "ca.crt"), // mutual
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer files.Close()
	server := &http.Server{TLSConfig: files.Server()} // server.ListenAndServeTLS("", "")
	fmt.Println(server.TLSConfig.ClientAuth)
	// Output: RequireAndVerifyClientCert
}
