package main

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/sillar-go/sillar/internal/testenv"
)

// browser is a page in headless Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// chromium is where the browser is, or ends the test.
func chromium(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath(cmp.Or(os.Getenv("SILLAR_CHROMIUM"), "chromium"))
	if err != nil {
		testenv.Missing(t,
			"no chromium: apt-get install chromium, or tools/services up as root, or name it in SILLAR_CHROMIUM")
	}
	return path
}

// openBrowser starts Chromium. What the page writes to its console, the browser's own complaints about the page's
// policy among it, fails the test.
func openBrowser(t *testing.T, path string) *browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium's sandbox is not for root
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	ctx, stop := chromedp.NewExecAllocator(ctx, opts...)
	ctx, leave := chromedp.NewContext(ctx)
	b := &browser{t, ctx}
	said, silence := context.WithCancel(ctx)
	messages, done := chromedp.Console(said), make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return
			}
			t.Errorf("the console of the page: %s %s", m, m.URL)
		}
	}()
	t.Cleanup(func() {
		silence()
		<-done
		leave()
		stop()
		cancel()
	})
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// eval evaluates an expression in the page.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if eval[bool](b, expression) {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("not seen: %s; the page says:\n%s", what, eval[string](b, "document.body.innerText"))
		}
	}
}

// press clicks a button that is seen.
func (b *browser) press(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// A person opens the page, places an order, breaks payments, and sees what becomes of it.
func TestPageInBrowser(t *testing.T) {
	path := chromium(t)
	h, _, _ := liveShop(t, nil) // closed after the browser
	b := openBrowser(t, path)
	b.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(h.URL()+"/"))
	b.until("the stream", `document.getElementById('conn').textContent === 'live'`)
	const steps = `[...document.querySelector('#orders > li')?.querySelectorAll('.steps > li') ?? []].map((s) => s.classList[0]).join(' ')`
	const end = `(document.querySelector('#orders > li .end span')?.textContent ?? '')`

	b.press("#place")
	b.until("an order that is paid", end+` === 'paid'`)
	if got := eval[string](b, steps); got != strings.TrimSpace(strings.Repeat("done ", 6)) {
		t.Errorf("the steps of an order that was paid: %s", got)
	}
	b.until("its notes", `document.getElementById('notes').textContent.includes('1 order placed.')`)
	b.until("its money",
		`document.querySelector('#strip .tile').classList.contains('ok') && /equals 1 confirmed order/.test(document.getElementById('strip').textContent)`)

	b.press("#orders .trace")
	b.until("the log of this order alone",
		`(() => { const id = document.querySelector('#orders .trace').value, lines = [...document.querySelectorAll('#log li')];
		return lines.length > 5 && document.getElementById('correlation').value === id && lines.every((l) => l.querySelector('.trace')?.value === id); })()`)

	b.press(`button[data-state="payments"][value="down"]`)
	b.until("the button that is pressed",
		`document.querySelector('button[data-state="payments"][value="down"]').getAttribute('aria-pressed') === 'true'`)
	b.press("#place")
	b.until("an order that turns back", end+`.startsWith('compensating')`)
	b.until("a breaker that is open",
		`document.getElementById('n-payments').textContent.includes('breaker open') && document.getElementById('e-orders-payments').classList.contains('open')`)
	b.press("#heal")
	b.until("an order that was taken back", end+`.startsWith('cancelled')`)
	if got := eval[string](b, steps); got != "undone done undone undone waiting waiting" &&
		got != "undone done undone failed waiting waiting" {
		t.Errorf("the steps of an order that was taken back: %s", got)
	}

	// In the narrow, nothing but the map is wider than the screen.
	b.do(chromedp.EmulateViewport(360, 780))
	if width := eval[float64](b, "document.documentElement.scrollWidth"); width > 360 {
		t.Errorf("the page is %v wide on a screen of 360", width)
	}
	// What comes by the stream is data to the page, not code.
	if n := eval[float64](b, "document.querySelectorAll('script:not([src]), [style], [onclick]').length"); n != 0 {
		t.Errorf("%v elements with code or style of their own", n)
	}
}
