package breaker_test

import (
	"context"
	"testing"

	"github.com/sony/gobreaker/v2"

	"github.com/sillar-go/sillar/breaker"
)

func BenchmarkSuccess(b *testing.B) {
	ctx := context.Background()
	fn := func(context.Context) (int, error) { return 1, nil }
	plain := func() (int, error) { return 1, nil }
	ours := breaker.Must(breaker.New(breaker.Config{Timeout: -1}))
	bounded := breaker.Must(breaker.New(breaker.Config{}))
	open := breaker.Must(breaker.New(breaker.Config{Timeout: -1}))
	open.Open()
	theirs := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{})
	for name, call := range map[string]func(){
		"sillar":         func() { _, _ = breaker.Do(ctx, ours, fn) },
		"sillar-timeout": func() { _, _ = breaker.Do(ctx, bounded, fn) },
		"sillar-open":    func() { _, _ = breaker.Do(ctx, open, fn) },
		"gobreaker":      func() { _, _ = theirs.Execute(plain) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
		b.Run(name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					call()
				}
			})
		})
	}
}
