// A second opinion: judges histories with porcupine, one JSON line in, one word out.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// history is one line of input: operations of one key.
type history struct {
	Model      string      `json:"model"`
	Operations []operation `json:"operations"`
}

// operation has a return time of null when its outcome is unknown.
type operation struct {
	Client   int             `json:"client"`
	Action   string          `json:"action"`
	Value    json.RawMessage `json:"value"`
	Invoked  int64           `json:"invoked"`
	Returned *int64          `json:"returned"`
}

// call is the input of a model's step; answers are part of it.
type call struct {
	action string
	text   string
	there  bool
	items  []string
	number int
	open   bool
}

// document is the state of one document.
type document struct {
	there bool
	value string
}

func stepDocument(before, input, _ any) (bool, any) {
	state, asked := before.(document), input.(call)
	written := document{true, asked.text}
	switch asked.action {
	case "get", "get_where":
		return asked.open || state == document{asked.there, asked.text}, state
	case "upsert":
		return true, written
	case "delete":
		return true, document{}
	case "add":
		if state.there {
			return true, state
		}
		return true, written
	case "update":
		if state.there {
			return true, written
		}
		return true, state
	}
	panic("not an action on a document: " + asked.action)
}

func stepName(before, input, _ any) (bool, any) {
	state, asked := before.(bool), input.(call)
	switch asked.action {
	case "exists":
		return asked.open || asked.there == state, state
	case "create":
		return asked.open || asked.there == !state, true
	case "drop":
		return asked.open || asked.there == state, false
	}
	panic("not an action on a name: " + asked.action)
}

// Sets and lists are kept as text, so that states compare.
const separator = "\x00"

func stepSet(before, input, _ any) (bool, any) {
	state, asked := before.(string), input.(call)
	var items []string
	if state != "" {
		items = strings.Split(state, separator)
	}
	switch asked.action {
	case "add":
		if !slices.Contains(items, asked.text) {
			items = append(items, asked.text)
			slices.Sort(items)
		}
		return true, strings.Join(items, separator)
	case "get_all":
		return asked.open || slices.Equal(items, asked.items), state
	case "count":
		return asked.open || len(items) == asked.number, state
	}
	panic("not an action on a set: " + asked.action)
}

func stepList(before, input, _ any) (bool, any) {
	state, asked := before.(string), input.(call)
	switch asked.action {
	case "append":
		return true, state + asked.text + separator
	case "get":
		text := ""
		for _, item := range asked.items {
			text += item + separator
		}
		return asked.open || text == state, state
	}
	panic("not an action on a list: " + asked.action)
}

func model(name string) porcupine.Model {
	initial := map[string]any{"register": document{}, "catalogue": false, "set": "", "list": ""}
	steps := map[string]func(any, any, any) (bool, any){
		"register": stepDocument, "catalogue": stepName, "set": stepSet, "list": stepList,
	}
	if steps[name] == nil {
		panic("no such model: " + name)
	}
	return porcupine.Model{Init: func() any { return initial[name] }, Step: steps[name]}
}

func decode(one operation) call {
	asked := call{action: one.Action, open: one.Returned == nil}
	var value any
	if err := json.Unmarshal(one.Value, &value); err != nil {
		panic(err)
	}
	switch value := value.(type) {
	case nil:
	case string:
		asked.text, asked.there = value, true
	case bool:
		asked.there = value
	case float64:
		asked.number = int(value)
	case []any:
		for _, item := range value {
			asked.items = append(asked.items, item.(string))
		}
	default:
		panic(fmt.Sprintf("not a value: %v", value))
	}
	return asked
}

func judge(line []byte) porcupine.CheckResult {
	var asked history
	if err := json.Unmarshal(line, &asked); err != nil {
		panic(err)
	}
	var end int64
	for _, one := range asked.Operations {
		end = max(end, one.Invoked+1)
		if one.Returned != nil {
			end = max(end, *one.Returned+1)
		}
	}
	var operations []porcupine.Operation
	for _, one := range asked.Operations {
		// What may never have happened may as well happen after everything else.
		returned := end
		if one.Returned != nil {
			returned = *one.Returned
		}
		operations = append(operations, porcupine.Operation{
			ClientId: one.Client, Input: decode(one), Call: one.Invoked, Output: nil, Return: returned,
		})
	}
	return porcupine.CheckOperationsTimeout(model(asked.Model), operations, 0)
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		fmt.Println(judge(lines.Bytes()))
	}
	if err := lines.Err(); err != nil {
		panic(err)
	}
}
