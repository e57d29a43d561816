package sagasql

import (
	"context"
	"fmt"
	"strings"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

const unfinished = "status IN ('RUNNING', 'COMPENSATING')"

// Claim implements saga.Store. On PostgreSQL several orchestrators claim at once without waiting for each other. It
// reads what it returns, one row for each owner, and up to limit rows for each kind: sagas that wait cost nothing.
func (s *Store) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	if len(kinds) == 0 || limit <= 0 {
		return nil, nil
	}
	claimed, err := s.claim(ctx, node, kinds, limit)
	if err != nil {
		return nil, fmt.Errorf("sagasql: claim: %w", err)
	}
	return claimed, nil
}

func (s *Store) claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	dead, err := s.deadOwners(ctx)
	if err != nil {
		return nil, err
	}
	query, args := s.dueSQL(kinds, dead, limit)
	if s.db.Dialect() == sqldb.SQLite { // a read outside a transaction does not wait for writers, and mostly finds nothing
		rows, err := s.read(ctx, query, args...)
		if err != nil || len(rows) == 0 {
			return nil, err
		}
	}
	var claimed []saga.Claimed
	err = s.db.InTx(ctx, func(ctx context.Context) error {
		claimed = nil
		rows, err := s.read(ctx, query, args...)
		if err != nil || len(rows) == 0 {
			return err
		}
		ids := []any{sqldb.Replan, node}
		alive := map[string]bool{}
		for _, row := range rows {
			r := row.record
			if row.err != nil {
				if err := s.setAside(ctx, row); err != nil {
					return err
				}
				continue
			}
			takenOver := r.Owner != ""
			if takenOver {
				if _, known := alive[r.Owner]; !known {
					if alive[r.Owner], err = s.alive(ctx, r.Owner); err != nil {
						return err
					}
				}
				if alive[r.Owner] {
					continue
				}
			}
			ids = append(ids, r.ID)
			r.Owner, r.Fence, r.Revision = node, r.Fence+1, r.Revision+1
			claimed = append(claimed, saga.Claimed{Record: r, TakenOver: takenOver})
		}
		if len(claimed) == 0 {
			return nil
		}
		update := s.returning(
			"",
			"UPDATE sillar_sagas SET owner = $1, fence = fence + 1, revision = revision + 1 WHERE id IN ("+
				strings.Join(marks(1, len(claimed)), ", ")+")",
		)
		if _, err = s.querier(ctx).Exec(ctx, s.sql(update), ids...); err != nil {
			return err
		}
		return s.writeHistory(ctx, ids[2:]...)
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// deadOwners returns the owners of unfinished sagas that have no lease. It reads one saga for each owner.
func (s *Store) deadOwners(ctx context.Context) (dead []any, err error) {
	next := "(SELECT owner FROM sillar_sagas WHERE owner <> '' AND " + unfinished +
		" AND owner > %s ORDER BY owner LIMIT 1)"
	rows, err := s.querier(ctx).
		Query(ctx, s.sql("WITH RECURSIVE owners (owner) AS (SELECT * FROM "+fmt.Sprintf(next, "''")+" AS f"+
			" UNION ALL SELECT "+fmt.Sprintf(next, "o.owner")+" FROM owners o WHERE o.owner IS NOT NULL)"+
			" SELECT owner FROM owners WHERE owner IS NOT NULL AND NOT EXISTS"+
			" (SELECT 1 FROM sillar_orchestrators n WHERE n.node = owners.owner AND n.expires_at > (SELECT @now))"),
			sqldb.Replan)
	if err != nil {
		return nil, err
	}
	defer closeRows(rows, &err)
	for rows.Next() {
		var owner string
		if err := rows.Scan(&owner); err != nil {
			return nil, err
		}
		dead = append(dead, owner)
	}
	return dead, rows.Err()
}

// alive reports whether a node has a lease now. Claim asks once more after it has locked a saga: a node may have taken
// the saga and its first lease after deadOwners looked.
func (s *Store) alive(ctx context.Context, node string) (bool, error) {
	n := 0
	query := s.sql("SELECT count(*) FROM sillar_orchestrators WHERE node = $1 AND expires_at > (SELECT @now)")
	err := s.querier(ctx).QueryRow(ctx, query, node).Scan(&n)
	return n > 0, err
}

// dueSQL returns the statement that finds, and on PostgreSQL locks, sagas that can be claimed. Each kind is looked up
// by itself, so that the order of the index bounds what is read.
func (s *Store) dueSQL(kinds []saga.Kind, dead []any, limit int) (query string, args []any) {
	lock := ""
	if s.db.Dialect() == sqldb.PostgreSQL {
		lock = " FOR UPDATE SKIP LOCKED"
	}
	args = append([]any{sqldb.Replan, limit}, dead...)
	owners := strings.Join(marks(1, len(dead)), ", ")
	var arms []string
	arm := func(where, order string) {
		arms = append(
			arms,
			fmt.Sprintf("SELECT * FROM (SELECT @columns FROM sillar_sagas WHERE %s AND %s ORDER BY %s LIMIT $1%s) a%d",
				unfinished, where, order, lock, len(arms)),
		)
	}
	for _, k := range kinds {
		of := fmt.Sprintf(" AND name = $%d AND version = $%d", len(args), len(args)+1)
		args = append(args, k.Name, k.Version)
		arm("owner = '' AND wake_at <= (SELECT @now)"+of, "wake_at, id")
		if len(dead) > 0 {
			arm("owner <> '' AND owner IN ("+owners+")"+of, "owner, name, version, id")
		}
	}
	return s.sql(strings.Join(arms, " UNION ALL ") + " ORDER BY wake_at, id LIMIT $1"), args
}

// setAside makes a saga that does not decode stuck, so that it stops nothing else. What is stored of its steps and its
// state stays as it is.
func (s *Store) setAside(ctx context.Context, row row) error {
	_, err := s.querier(ctx).Exec(ctx, s.sql("UPDATE sillar_sagas SET status = 'STUCK', owner = '', cause = $1,"+
		" fence = fence + 1, revision = revision + 1, updated_at = @now WHERE id = $2"), undecodable(row.err), row.record.ID)
	return err
}
