package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/sillar-go/sillar/examples/shop/internal/shopclient"
)

// messages returns the operator commands for dead letters and held events.
func messages() *cobra.Command {
	o := &operator{}
	cmd := &cobra.Command{Use: "messages", Short: "Dead letters and held events of a running shop"}
	o.register(cmd)
	cmd.AddCommand(deadLetters(o)...)
	cmd.AddCommand(heldEvents(o)...)
	return cmd
}

// deadLetters returns the commands for messages that a group of handlers gave up.
func deadLetters(o *operator) []*cobra.Command {
	const path = "/notifications/api/v1/dead-letters"
	var group string
	var limit int
	dead := &cobra.Command{Use: "dead", Short: "List a group's dead letters, oldest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.login(cmd)
			if err != nil {
				return err
			}
			a, err := c.Want(cmd.Context(), 200, "GET", fmt.Sprint(path, "?group=", url.QueryEscape(group), "&limit=", limit),
				nil)
			if err != nil {
				return err
			}
			var page struct {
				Items []struct {
					ID, Topic, Reason string
					Time              time.Time
					Attempts          int
				}
			}
			if err := a.Into(&page); err != nil {
				return err
			}
			for _, d := range page.Items {
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %-25s attempts %d  %s\n", d.Time.Format(time.RFC3339), d.ID, d.Topic,
					d.Attempts, d.Reason)
			}
			return nil
		}}
	redrive := &cobra.Command{Use: "redrive", Short: "Move dead letters back to their group, the oldest first",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.login(cmd)
			if err != nil {
				return err
			}
			a, err := c.Want(cmd.Context(), 200, "POST", path+"/redrive", map[string]any{"group": group, "limit": limit})
			if err != nil {
				return err
			}
			var moved struct{ Moved int }
			if err := a.Into(&moved); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d messages were moved back to %s\n", moved.Moved, group)
			return nil
		}}
	for _, c := range []*cobra.Command{dead, redrive} {
		c.Flags().StringVar(&group, "group", "notifications", "the group of handlers, which is a queue")
		c.Flags().IntVar(&limit, "limit", 50, "how many at most")
	}
	return []*cobra.Command{dead, redrive}
}

// heldEvents returns the commands for events that the outbox of a service could not publish.
func heldEvents(o *operator) []*cobra.Command {
	var service string
	var limit int
	path := func() string { return "/" + service + "/api/v1/held-events" }
	held := &cobra.Command{Use: "held", Short: "List the events that a service's outbox holds", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.login(cmd)
			if err != nil {
				return err
			}
			a, err := c.Want(cmd.Context(), 200, "GET", fmt.Sprint(path(), "?limit=", limit), nil)
			if err != nil {
				return err
			}
			return listHeld(cmd, a)
		}}
	held.Flags().IntVar(&limit, "limit", 50, "how many at most")
	commands := []*cobra.Command{held}
	for _, c := range []struct{ verb, short, done string }{
		{"publish", "Try held events at once", "are tried at once"},
		{"skip", "Let later events of their keys pass held events", "no longer stop their keys"},
		{"drop", "Delete held events without publishing them", "were dropped"},
	} {
		commands = append(commands, &cobra.Command{Use: c.verb + " ref...", Short: c.short, Args: cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, refs []string) error {
				client, err := o.login(cmd)
				if err != nil {
					return err
				}
				a, err := client.Want(cmd.Context(), 200, "POST", path()+"/"+c.verb, map[string]any{"refs": refs})
				if err != nil {
					return err
				}
				var change struct{ Changed int64 }
				if err := a.Into(&change); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d events of %s %s\n", change.Changed, service, c.done)
				return nil
			}})
	}
	for _, c := range commands {
		c.Flags().StringVar(&service, "service", "orders", "the service: users, products or orders")
	}
	return commands
}

// listHeld prints the events that are held.
func listHeld(cmd *cobra.Command, a shopclient.Answer) error {
	var page struct {
		Items []struct {
			Ref, ID, Topic, Key string
			Until               time.Time
			Attempts            int
			StopsKey            bool `json:"stops_key"`
		}
	}
	if err := a.Into(&page); err != nil {
		return err
	}
	for _, h := range page.Items {
		stops := ""
		if h.StopsKey {
			stops = "  stops key " + h.Key
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %-25s attempts %d  next %s%s\n", h.Ref, h.ID, h.Topic, h.Attempts,
			h.Until.Format(time.RFC3339), stops)
	}
	return nil
}
