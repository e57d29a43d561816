package driver_test

import (
	"fmt"

	"github.com/sillar-go/sillar/messaging/driver"
)

// Topics match AMQP's patterns.
func ExampleMatch() {
	fmt.Println(driver.Match("orders.*", "orders.created"), driver.Match("orders.*", "orders.created.v2"),
		driver.Match("orders.#", "orders.created.v2"))
	// Output: true false true
}
