// Package browser drives a Chromium through its DevTools protocol, for the tests of the status page.
package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Browser is a Chromium with one page. It is not safe for concurrent use.
type Browser struct {
	command *exec.Cmd
	conn    *websocket.Conn
	session string

	mu       sync.Mutex // guards what follows
	next     int
	replies  map[int]chan reply
	problems []string // of the page: what it wrote to the console as an error, and exceptions
}

type reply struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// Start starts a Chromium without a window, whose profile is in a folder.
func Start(profile string) (*Browser, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, fmt.Errorf("chromium is missing; install it: apt-get install chromium")
	}
	command := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
		"--disable-component-update", "--no-first-run", "--remote-debugging-port=0", "--user-data-dir="+profile, "about:blank")
	command.Env = append(os.Environ(), "HOME="+profile)
	output, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	b := &Browser{command: command, replies: map[int]chan reply{}}
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if _, found, ok := strings.Cut(lines.Text(), "DevTools listening on "); ok {
				address <- found
			}
		}
	}()
	select {
	case at := <-address:
		if err := b.connect(at); err != nil {
			b.Stop()
			return nil, err
		}
		return b, nil
	case <-time.After(60 * time.Second):
		b.Stop()
		return nil, errors.New("chromium does not say where it listens")
	}
}

// Stop ends it.
func (b *Browser) Stop() {
	if b.conn != nil {
		b.conn.CloseNow()
	}
	b.command.Process.Kill()
	b.command.Wait()
}

func (b *Browser) connect(address string) error {
	conn, _, err := websocket.Dial(context.Background(), address, nil)
	if err != nil {
		return err
	}
	conn.SetReadLimit(64 << 20)
	b.conn = conn
	go b.read()
	var target struct{ TargetID string }
	if err := b.Call("Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return err
	}
	var attached struct{ SessionID string }
	if err := b.Call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached); err != nil {
		return err
	}
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		if err := b.Call(domain+".enable", nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func (b *Browser) read() {
	for {
		_, text, err := b.conn.Read(context.Background())
		if err != nil {
			return
		}
		var message struct {
			ID     int
			Method string
			Params json.RawMessage
			reply
		}
		if json.Unmarshal(text, &message) != nil {
			continue
		}
		b.mu.Lock()
		if waiting := b.replies[message.ID]; waiting != nil {
			delete(b.replies, message.ID)
			waiting <- message.reply
		}
		switch message.Method {
		case "Runtime.exceptionThrown", "Log.entryAdded":
			if message.Method != "Log.entryAdded" || strings.Contains(string(message.Params), `"level":"error"`) {
				b.problems = append(b.problems, string(message.Params))
			}
		case "Runtime.consoleAPICalled":
			if strings.Contains(string(message.Params), `"type":"error"`) {
				b.problems = append(b.problems, string(message.Params))
			}
		}
		b.mu.Unlock()
	}
}

// Problems returns what the page wrote to the console as an error.
func (b *Browser) Problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.problems...)
}

// Call calls a method of the protocol. result may be nil.
func (b *Browser) Call(method string, params map[string]any, result any) error {
	b.mu.Lock()
	b.next++
	id := b.next
	waiting := make(chan reply, 1)
	b.replies[id] = waiting
	b.mu.Unlock()
	message := map[string]any{"id": id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if err := b.conn.Write(context.Background(), websocket.MessageText, text); err != nil {
		return err
	}
	select {
	case r := <-waiting:
		if r.Error != nil {
			return fmt.Errorf("%s: %s", method, r.Error.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(r.Result, result)
	case <-time.After(60 * time.Second):
		return fmt.Errorf("%s: no reply", method)
	}
}

// Open opens a page.
func (b *Browser) Open(url string) error {
	return b.Call("Page.navigate", map[string]any{"url": url}, nil)
}

// Eval evaluates an expression, which may be a promise, into a result, which may be nil.
func (b *Browser) Eval(expression string, result any) error {
	var evaluated struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	err := b.Call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &evaluated)
	if err != nil {
		return err
	}
	if evaluated.ExceptionDetails != nil {
		return fmt.Errorf("%s: %s", expression[:min(len(expression), 80)], evaluated.ExceptionDetails)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(evaluated.Result.Value, result)
}

// Text returns the text of the page.
func (b *Browser) Text() string {
	var text string
	if b.Eval("document.body ? document.body.innerText : ''", &text) != nil {
		return ""
	}
	return text
}

// Key presses a key, such as Tab or Enter.
func (b *Browser) Key(key, text string) error {
	codes := map[string]int{"Tab": 9, "Enter": 13}
	press := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
	if text != "" {
		press["text"] = text
	}
	if err := b.Call("Input.dispatchKeyEvent", press, nil); err != nil {
		return err
	}
	return b.Call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}, nil)
}

// Type types a text into what has the focus.
func (b *Browser) Type(text string) error {
	return b.Call("Input.insertText", map[string]any{"text": text}, nil)
}

// Look sets the size of the window, and whether the colours are dark.
func (b *Browser) Look(width, height int, phone, dark bool) error {
	err := b.Call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}, nil)
	if err != nil {
		return err
	}
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	return b.Call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]any{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Screenshot writes the page as a PNG.
func (b *Browser) Screenshot(file string) error {
	var shot struct{ Data string }
	if err := b.Call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot); err != nil {
		return err
	}
	content, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}
