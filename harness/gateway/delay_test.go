package gateway

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDelay_addsToTheRoundTripAndKeepsTheOrder(t *testing.T) {
	const added = 40 * time.Millisecond
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	delay, err := StartDelay(echo.Addr().String(), added)
	require.NoError(t, err)
	defer delay.Stop()
	c, err := net.Dial("tcp", delay.Address)
	require.NoError(t, err)
	defer c.Close()

	begun := time.Now()
	for i := range 10 {
		_, err := c.Write([]byte{byte(i)})
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
	}
	answer := make([]byte, 10)
	_, err = io.ReadFull(c, answer[:1])
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(begun), added)
	_, err = io.ReadFull(c, answer[1:])
	require.NoError(t, err)
	require.Equal(t, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, answer)
	require.Less(t, time.Since(begun), 10*added, "the delays add up")
}
