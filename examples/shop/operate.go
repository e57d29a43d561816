package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

// operator holds the login of the administrator that runs a command.
type operator struct{ gateway, name, password string }

func (o *operator) register(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&o.gateway, "gateway", "http://127.0.0.1:8080", "address of the running shop")
	f.StringVar(&o.name, "admin", "admin", "its administrator")
	f.StringVar(&o.password, "admin-password", "admin-password", "and the password")
}

func (o *operator) login(cmd *cobra.Command) (*shopclient.Client, error) {
	return shopclient.Login(cmd.Context(), o.gateway, o.name, o.password,
		fmt.Sprintf("operator-%d", time.Now().UnixNano()))
}

// sagaView is a saga as the orders service returns it.
type sagaView struct {
	ID, Name, Status, Cause string
	FailedStep              string    `json:"failed_step"`
	UpdatedAt               time.Time `json:"updated_at"`
	Steps                   []struct {
		Name, Status, Error string
		UndoError           string `json:"undo_error"`
		InDoubt             bool   `json:"in_doubt"`
	}
	Audit []struct {
		At                          time.Time
		Actor, Action, Step, Reason string
	}
	History []struct {
		At                  time.Time
		Status, Step, Owner string
	}
}

// step is the step that failed, or else the last one that was begun.
func (v sagaView) step() string {
	last := v.FailedStep
	for _, st := range v.Steps {
		if v.FailedStep == "" && st.Status != "NOT_STARTED" {
			last = st.Name
		}
	}
	return cmp.Or(last, "-")
}

func (v sagaView) print(w io.Writer) {
	fmt.Fprintf(w, "%s  %s  %s", v.ID, v.Name, v.Status)
	if v.Cause != "" {
		fmt.Fprintf(w, "  because %s said: %s", v.FailedStep, v.Cause)
	}
	fmt.Fprintln(w)
	for _, s := range v.Steps {
		fmt.Fprintf(w, "  %-20s %s", s.Name, s.Status)
		if s.InDoubt {
			fmt.Fprint(w, ", in doubt")
		}
		if s.Error != "" {
			fmt.Fprintf(w, "  %s", s.Error)
		}
		if s.UndoError != "" {
			fmt.Fprintf(w, "  compensation: %s", s.UndoError)
		}
		fmt.Fprintln(w)
	}
	for _, c := range v.History {
		fmt.Fprintf(w, "  %s  %-12s %-20s %s\n", c.At.Format(time.RFC3339Nano), strings.ToLower(c.Status), c.Step, c.Owner)
	}
	for _, a := range v.Audit {
		fmt.Fprintf(w, "  %s  %s by %s %s %s\n", a.At.Format(time.RFC3339), a.Action, a.Actor, a.Step, a.Reason)
	}
}

// sagas returns the operator commands for sagas.
func sagas() *cobra.Command {
	o := &operator{}
	cmd := &cobra.Command{Use: "sagas", Short: "Inspect the sagas of a running shop and resolve stuck ones"}
	o.register(cmd)

	var status, user string
	list := &cobra.Command{Use: "list", Short: "List sagas", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command,
		_ []string) error {
		c, err := o.login(cmd)
		if err != nil {
			return err
		}
		const row = "%-45s %-14s %-12s %-20s %-22s %s\n"
		fmt.Fprintf(cmd.OutOrStdout(), row, "SAGA", "NAME", "STATUS", "CHANGED", "STEP", "CAUSE")
		for after := ""; ; {
			q := url.Values{"limit": {"200"}, "status": {strings.ToUpper(status)}, "user": {user}, "after": {after}}
			a, err := c.Want(cmd.Context(), 200, "GET", "/orders/api/v1/sagas?"+q.Encode(), nil)
			if err != nil {
				return err
			}
			var page struct {
				Items []sagaView
				Next  string
			}
			if err := a.Into(&page); err != nil {
				return err
			}
			for _, v := range page.Items {
				fmt.Fprintf(cmd.OutOrStdout(), row, v.ID, v.Name, strings.ToLower(v.Status),
					v.UpdatedAt.UTC().Format("2006-01-02 15:04:05"), v.step(), v.Cause)
			}
			if after = page.Next; after == "" {
				return nil
			}
		}
	}}
	list.Flags().StringVar(&status, "status", "", "running, compensating, completed, compensated or stuck")
	list.Flags().StringVar(&user, "user", "", "the id of the user who placed the order")

	// one makes a command about one saga.
	one := func(use, short, method, suffix string, body func() any) *cobra.Command {
		return &cobra.Command{Use: use + " ID", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command,
			args []string) error {
			c, err := o.login(cmd)
			if err != nil {
				return err
			}
			a, err := c.Do(cmd.Context(), method, "/"+breakerhttp.Path("orders/api/v1/sagas", args[0])+suffix, body())
			if err != nil {
				return err
			}
			if a.Status != 200 {
				return fmt.Errorf("%s: %s", args[0], a.Field("detail"))
			}
			var v sagaView
			if err := json.Unmarshal(a.Body, &v); err != nil {
				return err
			}
			v.print(cmd.OutOrStdout())
			return nil
		}}
	}
	none := func() any { return nil }
	var step, reason string
	skip := one("skip", "Mark a step of a stuck saga as done manually", "POST", "/skip",
		func() any { return map[string]string{"step": step, "reason": reason} })
	skip.Flags().StringVar(&step, "step", "", "the step")
	skip.Flags().StringVar(&reason, "reason", "", "why; it is kept with the saga")
	for _, f := range []string{"step", "reason"} {
		if err := skip.MarkFlagRequired(f); err != nil {
			panic(err) // the flags are those above
		}
	}
	cmd.AddCommand(list, one("show", "Show a saga", "GET", "", none), one("retry", "Retry a stuck saga with new attempts",
		"POST", "/retry", none), skip)
	return cmd
}
