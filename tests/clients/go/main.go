// Runs the audience flow with the official Go package against a running server.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV2"
)

const (
	connection = "crm-integration"
	entity     = "users"
)

var fields = []string{"customer_tier", "lifetime_value", "nps_score"}

func ids(answer datadogV2.QueryResponse) []string {
	found := []string{}
	for _, hit := range answer.Data.Attributes.Hits {
		key, _, _ := strings.Cut(fmt.Sprint(hit["user_id"]), "-")
		found = append(found, key)
	}
	return found
}

func total(answer datadogV2.QueryResponse) int64 {
	return answer.Data.Attributes.GetTotal()
}

func facet(answer datadogV2.FacetInfoResponse) []any {
	found := []any{}
	for _, value := range answer.Data.Attributes.Result.Values {
		found = append(found, []any{value.GetValue(), value.GetCount()})
	}
	return found
}

func (a apis) listed() []datadogV2.ListConnectionsResponseDataAttributesConnectionsItems {
	return decoded(a.audience.ListConnections(a.ctx, entity)).Data.Attributes.Connections
}

func (a apis) customAttributes() map[string]datadogV2.GetMappingResponseDataAttributesAttributesItems {
	custom := map[string]datadogV2.GetMappingResponseDataAttributesAttributesItems{}
	builtIn := false
	for _, row := range decoded(a.audience.GetMapping(a.ctx, entity)).Data.Attributes.Attributes {
		if row.GetIsCustom() {
			custom[row.GetAttribute()] = row
		}
		builtIn = builtIn || row.GetAttribute() == "user_id" && !row.GetIsCustom()
	}
	require(builtIn, "mapping: user_id is not a built-in")
	return custom
}

func (a apis) clear() {
	for _, one := range a.listed() {
		taken := one.GetId() == connection
		for _, field := range one.Fields {
			taken = taken || slices.Contains(fields, field.Id)
		}
		if taken {
			expect(204)(a.audience.DeleteConnection(a.ctx, one.GetId(), entity))
		}
	}
}

func (a apis) define(metadata map[string]string) {
	for range 2 {
		expect(201)(a.audience.CreateConnection(a.ctx, entity, createConnection(connection, metadata)))
	}
	say("create connection, and the same again")
	for range 2 {
		expect(200)(a.audience.UpdateConnection(a.ctx, entity, updateConnection(connection)))
	}
	say("update connection, and the same again")
	all := a.listed()
	at := slices.IndexFunc(all, func(one datadogV2.ListConnectionsResponseDataAttributesConnectionsItems) bool {
		return one.GetId() == connection
	})
	require(at >= 0, "list connections: %s is not there", connection)
	found := all[at]
	require(found.Join.GetAttribute() == "user_email" && found.Join.GetType() == "email", "list connections: join")
	require(!found.GetUpdatedAt().IsZero(), "list connections: updated_at")
	byID := map[string]field{}
	for _, one := range found.Fields {
		byID[one.Id] = one
	}
	require(len(found.Fields) == len(fields), "list connections: %s", show(found.Fields))
	require(byID["nps_score"].SourceName == "net_promoter_score", "list connections: %s", show(found.Fields))
	groups := byID["lifetime_value"].Groups
	require(same(groups, []string{"Financial", "Metrics"}), "list connections: groups %v", groups)
	say("list connections shows the updated definition")
	custom := a.customAttributes()
	for _, name := range fields {
		require(custom["@"+name].Attribute != nil, "mapping: @%s is not there", name)
	}
	value := custom["@lifetime_value"]
	require(value.GetDisplayName() == "Customer Lifetime Value (`USD`)", "mapping: %s", show(value))
	say("mapping shows the custom attributes")
}

func (a apis) remove() {
	expect(204)(a.audience.DeleteConnection(a.ctx, connection, entity))
	for _, one := range a.listed() {
		require(one.GetId() != connection, "delete connection: it is still listed")
	}
	custom := a.customAttributes()
	for _, name := range fields {
		require(custom["@"+name].Attribute == nil, "delete connection: @%s is still in the mapping", name)
	}
	expect(404)(a.audience.DeleteConnection(a.ctx, connection, entity))
	say("delete connection")
}

func (a apis) users(query string, columns []string, by, order, term string) datadogV2.QueryResponse {
	return decoded(a.audience.QueryUsers(a.ctx, queryUsers(query, columns, by, order, term)))
}

func (a apis) runWaiting() {
	a.clear()
	a.define(nil)
	nowS := time.Now().Unix()
	event := queryEventFilteredUsers("customer_tier:gold", "@type:view", nowS-60, nowS, []string{"user_id"})
	found := []datadogV2.QueryResponse{
		a.users("customer_tier:gold", []string{"user_id", "customer_tier"}, "user_id", "ASC", ""),
		a.users("@customer_tier:gold", []string{"user_id", "@customer_tier"}, "user_id", "ASC", ""),
		decoded(a.audience.QueryAccounts(a.ctx, queryAccounts("account_id:none-such", []string{"account_id"}))),
		decoded(a.audience.QueryEventFilteredUsers(a.ctx, event)),
	}
	for _, answer := range found {
		require(answer.Data.Attributes.Total != nil && total(answer) == 0, "waiting connection: %s", show(answer))
	}
	say("queries on a waiting connection find nobody")
	byTier := decoded(a.audience.GetUserFacetInfo(a.ctx, facetInfo("customer_tier", "*", "")))
	byAccount := facetInfo("account_id", "account_id:none-such", "")
	accounts := decoded(a.audience.GetAccountFacetInfo(a.ctx, byAccount))
	require(len(facet(byTier))+len(facet(accounts)) == 0, "facets on a waiting connection: %s", show(byTier))
	say("facets on a waiting connection are empty")
	a.remove()
}

func main() {
	defer func() {
		switch problem := recover().(type) {
		case nil:
			fmt.Println("done go")
		case failure:
			fmt.Fprintln(os.Stderr, "FAIL", string(problem))
			os.Exit(1)
		default:
			panic(problem)
		}
	}()
	a := openAPIs()
	a.runWaiting()
	a.runTable()
}
