// Points the official Go package at a server and guards its answers; knows no request body.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/DataDog/datadog-api-client-go/v2/api/datadog"
	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV2"
)

const pollTimeout = 20 * time.Second

// failure is what the flow panics with and main reports: the text is for a reader.
type failure string

type apis struct {
	ctx      context.Context
	audience *datadogV2.RumAudienceManagementApi
	tables   *datadogV2.ReferenceTablesApi
	events   *datadogV2.ProductAnalyticsApi
}

func require(truth bool, form string, parts ...any) {
	if !truth {
		panic(failure(fmt.Sprintf(form, parts...)))
	}
}

func say(form string, parts ...any) {
	fmt.Printf("ok   "+form+"\n", parts...)
}

func show(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func same(left, right any) bool {
	return show(left) == show(right)
}

func environment(name string) string {
	value := os.Getenv(name)
	require(value != "", "set the environment variable %s", name)
	return value
}

func openAPIs() apis {
	target, err := url.Parse(environment("ROSTER_URL"))
	require(err == nil, "ROSTER_URL: %v", err)
	configuration := datadog.NewConfiguration()
	configuration.Scheme, configuration.Host = target.Scheme, target.Host
	for _, name := range []string{
		"CreateConnection", "UpdateConnection", "DeleteConnection", "ListConnections", "GetMapping", "QueryUsers",
		"QueryAccounts", "QueryEventFilteredUsers", "GetUserFacetInfo", "GetAccountFacetInfo",
	} {
		require(configuration.SetUnstableOperationEnabled("v2."+name, true), "no unstable operation %s", name)
	}
	client := datadog.NewAPIClient(configuration)
	keys := map[string]datadog.APIKey{
		"apiKeyAuth": {Key: environment("DD_API_KEY")},
		"appKeyAuth": {Key: environment("DD_APP_KEY")},
	}
	return apis{
		ctx:      context.WithValue(context.Background(), datadog.ContextAPIKeys, keys),
		audience: datadogV2.NewRumAudienceManagementApi(client),
		tables:   datadogV2.NewReferenceTablesApi(client),
		events:   datadogV2.NewProductAnalyticsApi(client),
	}
}

func named(response *http.Response) string {
	if response == nil || response.Request == nil {
		return "no answer"
	}
	return response.Request.Method + " " + response.Request.URL.Path
}

func reason(err error) string {
	if api, ok := err.(datadog.GenericOpenAPIError); ok {
		return fmt.Sprintf("%s: %s", api.ErrorMessage, api.ErrorBody)
	}
	return fmt.Sprint(err)
}

// decoded gives a typed answer; this package marks what it could not decode with UnparsedObject, and goes on.
func decoded[T any](answer T, response *http.Response, err error) T {
	require(err == nil, "%s: %s", named(response), reason(err))
	unparsed, raw := datadog.ContainsUnparsedObject(answer)
	require(!unparsed, "%s: the client could not parse %s", named(response), show(raw))
	return answer
}

// expect takes the result of an operation without a body.
func expect(status int) func(*http.Response, error) {
	return func(response *http.Response, err error) {
		got := 0
		if response != nil {
			got = response.StatusCode
		}
		problem := ""
		if err != nil {
			problem = reason(err)
		}
		require(got == status, "%s: expected %d, got %d: %s", named(response), status, got, problem)
	}
}

// missing tells, and says, that the server does not have the operation yet.
func missing(what string, response *http.Response) bool {
	if response == nil || response.StatusCode != http.StatusNotImplemented {
		return false
	}
	fmt.Printf("todo %s: answered %d, not there yet\n", what, http.StatusNotImplemented)
	return true
}

func poll[T any](what string, read func() T, good func(T) bool) T {
	for stop := time.Now().Add(pollTimeout); ; time.Sleep(200 * time.Millisecond) {
		answer := read()
		if good(answer) {
			return answer
		}
		require(time.Now().Before(stop), "%s: not within %s, last answer %s", what, pollTimeout, show(answer))
	}
}
