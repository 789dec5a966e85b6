// pgx: every way it has of sending a statement, batches, CopyFrom, types,
// savepoints, notifications, cancels, pool. Run by the tests of clients, once
// directly and once through lockgate.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgconn/stmtcache"
	"github.com/jackc/pgtype"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var ctx = context.Background()

func main() {
	map[string]func(){"work": work, "denied": denied}[os.Args[1]]()
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A mode is a way of sending statements with parameters.
type mode struct {
	name string
	set  func(*pgx.ConnConfig)
}

func cache(mode, capacity int) func(*pgx.ConnConfig) {
	return func(config *pgx.ConnConfig) {
		config.BuildStatementCache = func(connection *pgconn.PgConn) stmtcache.Cache {
			return stmtcache.New(connection, mode, capacity)
		}
	}
}

var modes = []mode{
	{"prepared", cache(stmtcache.ModePrepare, 8)},
	{"described", cache(stmtcache.ModeDescribe, 8)},
	{"uncached", func(config *pgx.ConnConfig) { config.BuildStatementCache = nil }},
	{"simple", func(config *pgx.ConnConfig) { config.PreferSimpleProtocol = true }},
}

// By the variables that every client of the tests is given.
func connect(set func(*pgx.ConnConfig)) *pgx.Conn {
	config, err := pgx.ParseConfig("application_name=shop")
	check(err)
	set(config)
	connection, err := pgx.ConnectConfig(ctx, config)
	check(err)
	return connection
}

func work() {
	for number, mode := range modes {
		fmt.Println(mode.name)
		connection := connect(mode.set)
		types(connection, number)
		read(connection)
		write(connection, 20+10*number)
		batch(connection)
		check(connection.Close(ctx))
	}
	connection := connect(modes[0].set)
	several(connection)
	prepared(connection)
	copies(connection)
	notifications(connection)
	cancels(connection)
	pool()
}

// Values go to the server and come back.
func types(c *pgx.Conn, number int) {
	var total, tags, seen, id = pgtype.Numeric{}, pgtype.TextArray{}, pgtype.Timestamptz{}, pgtype.UUID{}
	check(total.Set(fmt.Sprintf("12%d.50", number)))
	check(tags.Set([]string{"a b", `it's "quoted", {braced}`, "李"}))
	check(seen.Set(time.Date(2026, 8, 1, 12, 30, 0, 123456000, time.UTC)))
	check(id.Set("0123456789abcdef0123456789abcdef"))
	details := &pgtype.JSONB{}
	check(details.Set(map[string]any{"n": number, "text": "it's; --"}))
	var sale int32
	err := c.QueryRow(ctx,
		`insert into sales (buyer, total, tags, details, receipt, number)
		 values ($1, $2, $3, $4, $5, $6) returning id`,
		1, &total, &tags, details, []byte{0, '\\', '\'', 0xff}, &id).Scan(&sale)
	check(err)
	var receipt []byte
	var object map[string]any
	var labels []string
	var amount float64
	err = c.QueryRow(ctx,
		"select total, tags, details, receipt, number, total::float8, tags, details from sales where id = $1", sale).
		Scan(&total, &tags, details, &receipt, &id, &amount, &labels, &object)
	check(err)
	text, _ := total.EncodeText(nil, nil)
	fmt.Println(string(text), labels, string(details.Bytes), receipt, id.Bytes, amount, object)

	_, err = c.Exec(ctx, "update people set seen = $1, mood = $2 where id = $3", &seen, "glad", 3)
	check(err)
	var at time.Time
	var mood string
	var born *time.Time
	row := c.QueryRow(ctx, "select seen, mood, born from people where seen = $1 and mood = $2", &seen, "glad")
	check(row.Scan(&at, &mood, &born))
	fmt.Println(at.UTC(), mood, born.Format("2006-01-02"))
	check(c.QueryRow(ctx, "select born from people where name = $1", "Bob").Scan(&born))
	fmt.Println(born)
}

func read(c *pgx.Conn) {
	names := &pgtype.TextArray{}
	check(names.Set([]string{"Ann", "李"}))
	rows, err := c.Query(ctx,
		"select p.id, name, tags from people p join sales s on s.buyer = p.id where s.id < $1 and name = any($2) order by s.id",
		9, names)
	check(err)
	for _, field := range rows.FieldDescriptions() {
		fmt.Print(string(field.Name), " ", field.DataTypeOID, " ")
	}
	for rows.Next() {
		values, err := rows.Values()
		check(err)
		fmt.Print(values[0], values[1], " ")
	}
	check(rows.Err())
	fmt.Println(rows.CommandTag())
	// More texts than the cache of statements holds, twice.
	for number := 0; number < 24; number++ {
		var sum int
		sql := fmt.Sprintf("select %d + $1::int", number%12)
		check(c.QueryRow(ctx, sql, 1).Scan(&sum))
		fmt.Print(sum, " ")
	}
	fmt.Println(c.QueryRow(ctx, "select 1 from people where id = $1", -1).Scan(nil))
	// Not read to its end.
	rows, err = c.Query(ctx, "select id from sales where id > $1", 3)
	check(err)
	rows.Next()
	rows.Close()
	check(rows.Err())
}

func write(c *pgx.Conn, from int) {
	transaction, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	check(err)
	for position := from; position < from+3; position++ {
		tag, err := transaction.Exec(ctx, "insert into sale_lines values ($1, $2, $3, 1)", 7, position, "it's; --")
		check(err)
		fmt.Print(tag, " ")
	}
	savepoint, err := transaction.Begin(ctx)
	check(err)
	_, err = savepoint.Exec(ctx, "insert into sale_lines values ($1, $2, '', 0)", 7, from)
	fmt.Println(told(err))
	check(savepoint.Rollback(ctx))
	nested := transaction.BeginFunc(ctx, func(inner pgx.Tx) error {
		_, err := inner.Exec(ctx, "delete from sale_lines where sale = $1 and position = $2", 7, from)
		return err
	})
	check(nested)
	check(transaction.Commit(ctx))
	undone := c.BeginFunc(ctx, func(inner pgx.Tx) error {
		_, err := inner.Exec(ctx, "delete from sale_lines")
		check(err)
		return errors.New("undone")
	})
	var left int
	check(c.QueryRow(ctx, "select count(*) from sale_lines").Scan(&left))
	fmt.Println(undone, left)
	only, err := c.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.Serializable, DeferrableMode: pgx.Deferrable})
	check(err)
	_, err = only.Exec(ctx, "update sales set total = total")
	fmt.Println(told(err))
	check(only.Rollback(ctx))
}

func batch(c *pgx.Conn) {
	batch := &pgx.Batch{}
	for number := 1; number < 6; number++ {
		batch.Queue("update sales set total = total + $1 where id < $2", 1, number)
		batch.Queue("select sum(total)::text from sales where id <= $1", number)
	}
	batch.Queue("select name from people order by id")
	results := c.SendBatch(ctx, batch)
	for number := 1; number < 6; number++ {
		tag, err := results.Exec()
		check(err)
		var sum string
		check(results.QueryRow().Scan(&sum))
		fmt.Print(tag, " ", sum, " ")
	}
	rows, err := results.Query()
	check(err)
	for rows.Next() {
		var name string
		check(rows.Scan(&name))
		fmt.Print(name, " ")
	}
	check(results.Close())
	// An error in the middle undoes all of it.
	broken := &pgx.Batch{}
	broken.Queue("delete from sale_lines where sale = $1", 8)
	broken.Queue("select 1 / $1::int", 0)
	broken.Queue("delete from sale_lines where sale = $1", 9)
	results = c.SendBatch(ctx, broken)
	_, first := results.Exec()
	_, second := results.Exec()
	_, third := results.Exec()
	_ = results.Close()
	var left int
	check(c.QueryRow(ctx, "select count(*) from sale_lines where sale in (8, 9)").Scan(&left))
	fmt.Println(first, told(second), told(third), left)
}

// Several statements in one text, in the simple protocol.
func several(c *pgx.Conn) {
	results, err := c.PgConn().Exec(ctx, "select 1, 2; update sales set total = total where id < 3; select 'x'").ReadAll()
	check(err)
	for _, result := range results {
		fmt.Print(result.CommandTag, " ", len(result.Rows), " ")
	}
	fmt.Println()
}

func prepared(c *pgx.Conn) {
	statement, err := c.Prepare(ctx, "by_name", "select id, mood, address from people where name = $1")
	check(err)
	fmt.Println(statement.ParamOIDs, len(statement.Fields))
	for _, name := range []string{"Ann", "Çelik", "Ann"} {
		var id int64
		var mood, address string
		check(c.QueryRow(ctx, "by_name", name).Scan(&id, &mood, &address))
		fmt.Print(id, mood, address, " ")
	}
	check(c.Deallocate(ctx, "by_name"))
	fmt.Println()
	// A type that is not built in, made known to the driver.
	var oid uint32
	check(c.QueryRow(ctx, "select 'mood'::regtype::oid").Scan(&oid))
	c.ConnInfo().RegisterDataType(pgtype.DataType{
		Value: pgtype.NewEnumType("mood", []string{"glad", "calm", "sad"}), Name: "mood", OID: oid,
	})
	rows, err := c.Query(ctx, "select mood from people order by id")
	check(err)
	for rows.Next() {
		values, err := rows.Values()
		check(err)
		fmt.Print(values[0], " ")
	}
	fmt.Println(rows.Err())
}

// In binary, as pgx does by itself, and as text.
func copies(c *pgx.Conn) {
	rows := make([][]any, 500)
	for number := range rows {
		rows[number] = []any{time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC), "rust", float64(number)}
	}
	copied, err := c.CopyFrom(ctx, pgx.Identifier{"public", "measures"}, []string{"at", "place", "value"}, pgx.CopyFromRows(rows))
	check(err)
	fmt.Print(copied, " copied; ")
	number, amount := &pgtype.UUID{}, &pgtype.Numeric{}
	check(number.Set("0123456789abcdef0123456789abcdef"))
	check(amount.Set("3.25"))
	copied, err = c.CopyFrom(ctx, pgx.Identifier{"sales"}, []string{"id", "buyer", "total", "tags", "details", "receipt", "number"},
		pgx.CopyFromSlice(2, func(i int) ([]any, error) {
			return []any{1000 + i, int64(2), amount, []string{"copied"}, map[string]any{"i": i}, []byte{1, 2}, number}, nil
		}))
	check(err)
	_, failed := c.CopyFrom(ctx, pgx.Identifier{"sales"}, []string{"id", "buyer"}, pgx.CopyFromRows([][]any{{1000, int64(1)}}))
	fmt.Println(copied, told(failed))
	tag, err := c.PgConn().CopyTo(ctx, os.Stdout, "copy (select id, total, details from sales where id >= 1000 order by id) to stdout (format csv)")
	check(err)
	fmt.Println(tag)
}

func notifications(c *pgx.Conn) {
	_, err := c.Exec(ctx, "listen news")
	check(err)
	other := connect(modes[0].set)
	_, err = other.Exec(ctx, "select pg_notify($1, $2)", "news", "rain")
	check(err)
	check(other.Close(ctx))
	limited, end := context.WithTimeout(ctx, 5*time.Second)
	defer end()
	heard, err := c.WaitForNotification(limited)
	check(err)
	_, err = c.Exec(ctx, "unlisten news")
	check(err)
	fmt.Println(heard.Channel, heard.Payload)
}

func cancels(c *pgx.Conn) {
	// The request by itself: the connection goes on.
	go func() {
		time.Sleep(300 * time.Millisecond)
		check(c.PgConn().CancelRequest(ctx))
	}()
	_, err := c.Exec(ctx, "select pg_sleep(20)")
	var one int
	check(c.QueryRow(ctx, "select 1").Scan(&one))
	fmt.Println(told(err), one)
	// A context that ends takes the connection with it.
	limited, end := context.WithTimeout(ctx, 300*time.Millisecond)
	defer end()
	begun := time.Now()
	_, err = c.Exec(limited, "select pg_sleep(20)")
	fmt.Println(pgconn.Timeout(err), time.Since(begun) < 10*time.Second, c.IsClosed())
}

func pool() {
	config, err := pgxpool.ParseConfig("pool_max_conns=3 pool_min_conns=1")
	check(err)
	pool, err := pgxpool.ConnectConfig(ctx, config)
	check(err)
	sums := make(chan int)
	for number := 0; number < 12; number++ {
		go func(number int) {
			var sum int
			check(pool.QueryRow(ctx, "select $1::int + count(*)::int from people, pg_sleep(0.02)", number).Scan(&sum))
			sums <- sum
		}(number)
	}
	total := 0
	for number := 0; number < 12; number++ {
		total += <-sums
	}
	limited, end := context.WithTimeout(ctx, 200*time.Millisecond)
	_, err = pool.Exec(limited, "select pg_sleep(20)")
	end()
	fmt.Println(total, pgconn.Timeout(err), pool.Ping(ctx), pool.Stat().TotalConns() <= 3)
	check(pool.BeginFunc(ctx, func(transaction pgx.Tx) error {
		_, err := transaction.Exec(ctx, "delete from sale_lines where sale = 3")
		return err
	}))
	pool.Close()
}

// SQLSTATE, constraint, and how the message begins.
func told(err error) string {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return fmt.Sprint(err)
	}
	return fmt.Sprintf("%s %q %.27s", server.Code, server.ConstraintName, server.Message)
}

func denied() {
	for _, mode := range modes {
		c := connect(mode.set)
		_, err := c.Exec(ctx, "truncate sale_lines")
		fmt.Println(mode.name, told(err), people(c))
		transaction, err := c.Begin(ctx)
		check(err)
		_, err = transaction.Exec(ctx, "update people set name = $1 where id = $2", "Ann", 1)
		check(err)
		for _, sql := range []string{"truncate sale_lines", "select 1"} {
			_, err = transaction.Exec(ctx, sql)
			fmt.Println("transaction", told(err))
		}
		check(transaction.Rollback(ctx))
		batch := &pgx.Batch{}
		batch.Queue("update people set name = $1 where id = $2", "Nobody", 1)
		batch.Queue("truncate sale_lines")
		fmt.Println("batch", told(c.SendBatch(ctx, batch).Close()), people(c))
		check(c.Close(ctx))
	}
	c := connect(modes[0].set)
	_, err := c.CopyFrom(ctx, pgx.Identifier{"pg_catalog", "pg_authid"}, []string{"rolname"}, pgx.CopyFromRows(nil))
	fmt.Println("copy", told(err), people(c))
}

func people(c *pgx.Conn) (count int) {
	check(c.QueryRow(ctx, "select count(*) from people where name <> $1", "Nobody").Scan(&count))
	return count
}
