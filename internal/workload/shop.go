package workload

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// The shop: tables that belong together and the transactions of an application.

const (
	accounts       = 100
	accountBalance = 1000
	customers      = 60
	seats          = 40
)

// AccountSum is what the balances of all accounts add up to, at all times.
const AccountSum = accounts * accountBalance

var shopTables = []string{
	"CREATE TABLE account (id INT PRIMARY KEY, owner VARCHAR(40) NOT NULL, balance DECIMAL(18,2) NOT NULL, version INT UNSIGNED NOT NULL DEFAULT 0, changed TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
	"CREATE TABLE transfer (id BIGINT AUTO_INCREMENT PRIMARY KEY, debit INT NOT NULL, credit INT NOT NULL, amount DECIMAL(18,2) NOT NULL, at DATETIME(6) NOT NULL, KEY (debit), KEY (credit))",
	"CREATE TABLE customer (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(80) NOT NULL, name VARCHAR(60), tier ENUM('basic','plus','pro') NOT NULL DEFAULT 'basic', tags SET('new','vip','eu','cn') NOT NULL DEFAULT '', preferences JSON, UNIQUE KEY (email))",
	"CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer_id INT NULL, status VARCHAR(12) NOT NULL, total DECIMAL(12,2) NOT NULL DEFAULT 0, placed DATETIME(3) NOT NULL, KEY (status), CONSTRAINT fk_orders_customer FOREIGN KEY (customer_id) REFERENCES customer (id) ON DELETE SET NULL ON UPDATE CASCADE)",
	"CREATE TABLE order_line (order_id BIGINT NOT NULL, line INT NOT NULL, sku CHAR(8) NOT NULL, quantity SMALLINT UNSIGNED NOT NULL, price DECIMAL(10,2) NOT NULL, PRIMARY KEY (order_id, line), CONSTRAINT fk_line_order FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE ON UPDATE CASCADE)",
	"CREATE TABLE stock (sku CHAR(8) PRIMARY KEY, quantity INT NOT NULL)",
	"CREATE TABLE seat (id INT PRIMARY KEY, place INT NOT NULL, label VARCHAR(20) NOT NULL, UNIQUE KEY uk_place (place), UNIQUE KEY uk_label (label))",
	"CREATE TABLE counter (name VARCHAR(20) PRIMARY KEY, n BIGINT NOT NULL)",
	"CREATE TABLE visit (at DATETIME NOT NULL, who INT NOT NULL, page VARCHAR(20) NOT NULL)",
	"CREATE TABLE large (id INT PRIMARY KEY, note VARCHAR(200) NOT NULL, amount DOUBLE NOT NULL)",
}

func fillShop(ctx context.Context, c *client) error {
	rows := func(n int, row func(i int) string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = row(i)
		}
		return strings.Join(all, ",")
	}
	for _, q := range []string{
		"INSERT INTO account (id, owner, balance) VALUES " + rows(accounts, func(i int) string { return fmt.Sprintf("(%d,'owner %d',%d)", i+1, i+1, accountBalance) }),
		"INSERT INTO customer (id, email, name) VALUES " + rows(customers, func(i int) string { return fmt.Sprintf("(%d,'c%d@example.org','Customer %d')", i+1, i+1, i+1) }),
		"INSERT INTO stock VALUES " + rows(20, func(i int) string { return fmt.Sprintf("('SKU-%d',100000)", i) }),
		"INSERT INTO seat VALUES " + rows(seats, func(i int) string { return fmt.Sprintf("(%d,%d,'seat %d')", i+1, i+1, i+1) }),
		"INSERT INTO counter VALUES ('hits',0),('misses',0),('Größe',0)",
	} {
		if err := c.exec(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// CheckSum fails when the balances of the accounts do not add up: half a
// transaction was applied, or one was lost or doubled.
func CheckSum(ctx context.Context, db *sql.DB) error {
	var sum string
	if err := db.QueryRowContext(ctx, "SELECT CAST(SUM(balance) AS CHAR) FROM "+Schema+".account").Scan(&sum); err != nil {
		return err
	}
	if want := strconv.Itoa(AccountSum) + ".00"; sum != want {
		return fmt.Errorf("the balances add up to %s instead of %s", sum, want)
	}
	return nil
}

var shopOperations = []func(ctx context.Context, c *client) error{
	transfer, transfer, transfer, placeOrder, placeOrder, changeOrder, dropOrder, swapSeats, swapSeats, rotateSeats,
	countHit, visit, changeCustomer, churnCustomer, unvisit, upsertCustomer,
}

func transfer(ctx context.Context, c *client) error {
	from := 1 + c.r.IntN(accounts)
	to := 1 + (from+c.r.IntN(accounts-1))%accounts
	cents := 1 + c.r.IntN(5000)
	amount := fmt.Sprintf("%d.%02d", cents/100, cents%100)
	// In the order of their ids, so that two transfers do not wait for each other.
	first, second := fmt.Sprintf("balance - %s", amount), fmt.Sprintf("balance + %s", amount)
	a, b := from, to
	if a > b {
		a, b, first, second = b, a, second, first
	}
	for _, q := range []string{
		fmt.Sprintf("UPDATE account SET balance = %s, version = version + 1 WHERE id = %d", first, a),
		fmt.Sprintf("UPDATE account SET balance = %s, version = version + 1 WHERE id = %d", second, b),
		fmt.Sprintf("INSERT INTO transfer (debit, credit, amount, at) VALUES (%d,%d,%s,NOW(6))", from, to, amount),
	} {
		if err := c.exec(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func placeOrder(ctx context.Context, c *client) error {
	if err := c.exec(ctx, fmt.Sprintf("INSERT INTO orders (customer_id, status, placed) SELECT MIN(id), 'new', NOW(3) FROM customer WHERE id >= %d", 1+c.r.IntN(customers))); err != nil {
		return err
	}
	if err := c.exec(ctx, "SET @order = LAST_INSERT_ID()"); err != nil {
		return err
	}
	for line := range 1 + c.r.IntN(4) {
		sku := c.r.IntN(20)
		n := 1 + c.r.IntN(5)
		if err := c.exec(ctx, fmt.Sprintf("INSERT INTO order_line VALUES (@order,%d,'SKU-%d',%d,%d.99)", line+1, sku, n, 1+sku)); err != nil {
			return err
		}
		if err := c.exec(ctx, fmt.Sprintf("UPDATE stock SET quantity = quantity - %d WHERE sku = 'SKU-%d'", n, sku)); err != nil {
			return err
		}
	}
	return c.exec(ctx, "UPDATE orders SET total = (SELECT SUM(quantity * price) FROM order_line WHERE order_id = @order) WHERE id = @order")
}

// someOrder is a condition that finds about one of the latest orders.
func someOrder(r *rand.Rand) string {
	return fmt.Sprintf("id = (SELECT id FROM (SELECT MAX(id) - %d AS id FROM orders) newest)", r.IntN(50))
}

func changeOrder(ctx context.Context, c *client) error {
	status := []string{"paid", "packed", "sent", "returned"}[c.r.IntN(4)]
	return c.exec(ctx, "UPDATE orders SET status = '"+status+"' WHERE "+someOrder(c.r))
}

// dropOrder deletes lines by the foreign key's cascade.
func dropOrder(ctx context.Context, c *client) error {
	return c.exec(ctx, "DELETE FROM orders WHERE "+someOrder(c.r))
}

// swapSeats exchanges two unique values through a third, in one transaction.
func swapSeats(ctx context.Context, c *client) error {
	a := 1 + c.r.IntN(seats-1)
	b := a + 1 + c.r.IntN(seats-a)
	free := -1 - c.r.IntN(1<<30)
	for _, q := range []string{
		fmt.Sprintf("SELECT place INTO @a FROM seat WHERE id = %d FOR UPDATE", a),
		fmt.Sprintf("SELECT place INTO @b FROM seat WHERE id = %d FOR UPDATE", b),
		fmt.Sprintf("UPDATE seat SET place = %d WHERE id = %d", free, a),
		fmt.Sprintf("UPDATE seat SET place = @a WHERE id = %d", b),
		fmt.Sprintf("UPDATE seat SET place = @b WHERE id = %d", a),
	} {
		if err := c.exec(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// rotateSeats deletes rows and inserts them again with each other's unique values.
func rotateSeats(ctx context.Context, c *client) error {
	a := 1 + c.r.IntN(seats-1)
	b := a + 1 + c.r.IntN(seats-a)
	for _, q := range []string{
		fmt.Sprintf("SELECT place, label INTO @pa, @la FROM seat WHERE id = %d FOR UPDATE", a),
		fmt.Sprintf("SELECT place, label INTO @pb, @lb FROM seat WHERE id = %d FOR UPDATE", b),
		fmt.Sprintf("DELETE FROM seat WHERE id IN (%d, %d)", a, b),
		fmt.Sprintf("INSERT INTO seat VALUES (%d, @pb, @lb), (%d, @pa, @la)", a, b),
	} {
		if err := c.exec(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func countHit(ctx context.Context, c *client) error {
	return c.exec(ctx, "UPDATE counter SET n = n + 1 WHERE name = '"+[]string{"hits", "misses", "Größe"}[c.r.IntN(3)]+"'")
}

// visit and unvisit work on a table without any key, with equal rows.
func visit(ctx context.Context, c *client) error {
	row := fmt.Sprintf("('2024-01-01 00:00:00', %d, '/p%d')", c.r.IntN(3), c.r.IntN(3))
	return c.exec(ctx, "INSERT INTO visit VALUES "+row+", "+row)
}

func unvisit(ctx context.Context, c *client) error {
	if c.r.IntN(2) == 0 {
		return c.exec(ctx, fmt.Sprintf("UPDATE visit SET page = '/p%d' WHERE who = %d LIMIT 2", c.r.IntN(3), c.r.IntN(3)))
	}
	return c.exec(ctx, fmt.Sprintf("DELETE FROM visit WHERE who = %d LIMIT %d", c.r.IntN(3), 1+c.r.IntN(3)))
}

func changeCustomer(ctx context.Context, c *client) error {
	id := 1 + c.r.IntN(customers)
	switch c.r.IntN(4) {
	case 0:
		return c.exec(ctx, fmt.Sprintf("UPDATE customer SET email = 'c%d@example.org' WHERE id = %d", 1+c.r.IntN(customers*2), id))
	case 1:
		return c.exec(ctx, fmt.Sprintf("UPDATE customer SET preferences = JSON_SET(COALESCE(preferences, '{}'), '$.k%d', %d) WHERE id = %d", c.r.IntN(5), c.r.IntN(1000), id))
	case 2: // the orders follow by the foreign key's cascade
		return c.exec(ctx, fmt.Sprintf("UPDATE customer SET id = %d WHERE id = %d", 1+c.r.IntN(customers*2), id))
	default:
		return c.exec(ctx, fmt.Sprintf("UPDATE customer SET name = %s, tags = 'vip,cn' WHERE id BETWEEN %d AND %d", textLiteral(randomText(c.r, "utf8mb4", 12)), id, id+2))
	}
}

// churnCustomer deletes a customer, whose orders lose it by SET NULL, and makes
// another one with the same email.
func churnCustomer(ctx context.Context, c *client) error {
	id := 1 + c.r.IntN(customers)
	if err := c.exec(ctx, fmt.Sprintf("DELETE FROM customer WHERE id = %d", id)); err != nil {
		return err
	}
	return c.exec(ctx, fmt.Sprintf("INSERT INTO customer (id, email, name, tier) VALUES (%d,'c%d@example.org','again','pro')", id, id))
}

func upsertCustomer(ctx context.Context, c *client) error {
	n := 1 + c.r.IntN(customers*2)
	return c.exec(ctx, fmt.Sprintf("INSERT INTO customer (email, name) VALUES ('c%d@example.org','upserted') ON DUPLICATE KEY UPDATE name = CONCAT('again ', %d), tier = 'plus'", n, n))
}
