package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// messages returns the operator commands for dead letters.
func messages() *cobra.Command {
	o := &operator{}
	cmd := &cobra.Command{Use: "messages", Short: "List and redrive the dead letters of a running shop"}
	o.register(cmd)
	const path = "/notifications/api/v1/dead-letters"
	var group string
	var limit int
	dead := &cobra.Command{Use: "dead", Short: "List a group's dead letters, oldest first", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := o.login(cmd)
		if err != nil {
			return err
		}
		a, err := c.Want(cmd.Context(), 200, "GET", fmt.Sprint(path, "?group=", url.QueryEscape(group), "&limit=", limit), nil)
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
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %-25s attempts %d  %s\n", d.Time.Format(time.RFC3339), d.ID, d.Topic, d.Attempts, d.Reason)
		}
		return nil
	}}
	redrive := &cobra.Command{Use: "redrive", Short: "Move dead letters back to their group, the oldest first", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
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
	cmd.AddCommand(dead, redrive)
	return cmd
}
