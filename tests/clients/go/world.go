// Makes the people, the table and the events of one run with the official Go package, and checks what follows.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV2"
)

type identity struct {
	id   string
	more map[string]any
}

type scenario struct {
	People []struct {
		Key     string `json:"key"`
		Name    string `json:"name"`
		Ordered bool   `json:"ordered"`
	} `json:"people"`
	Columns          []string `json:"columns"`
	Rows             [][]any  `json:"rows"`
	Search           string   `json:"search"`
	Loyal            []string `json:"loyal"`
	Buyers           []string `json:"buyers"`
	Tiers            []any    `json:"tiers"`
	UpsertedRow      []any    `json:"upserted_row"`
	LoyalAfterUpsert []string `json:"loyal_after_upsert"`
	DeletedRow       string   `json:"deleted_row"`
	LoyalAfterDelete []string `json:"loyal_after_delete"`
}

type world struct {
	apis
	scenario
	run, domain, tableName, tableID, applicationID, everyone string
	account                                                  identity
}

func makeWorld(a apis) *world {
	text, err := os.ReadFile(environment("ROSTER_SCENARIO"))
	require(err == nil, "scenario: %v", err)
	raw := make([]byte, 4)
	_, err = rand.Read(raw)
	require(err == nil, "random bytes: %v", err)
	run := hex.EncodeToString(raw)
	domain := "r" + run + ".example.com"
	w := &world{
		apis: a, run: run, domain: domain, tableName: "crm_integration_" + run,
		applicationID: "app-" + run, everyone: "user_email:*@" + domain,
		account: identity{"acc-" + run, map[string]any{"name": "Account " + run}},
	}
	require(json.Unmarshal(text, &w.scenario) == nil, "scenario: not JSON")
	return w
}

func (w *world) email(key any) string {
	return fmt.Sprintf("%v@%s", key, w.domain)
}

func (w *world) row(cells []any) map[string]any {
	row := map[string]any{w.Columns[0]: w.email(cells[0])}
	for at, cell := range cells[1:] {
		row[w.Columns[at+1]] = cell
	}
	return row
}

func (w *world) createTable() {
	lines := []string{strings.Join(w.Columns, ",")}
	for _, cells := range w.Rows {
		lines = append(lines, fmt.Sprintf("%s,%v,%v,%v", w.email(cells[0]), cells[1], cells[2], cells[3]))
	}
	content := strings.Join(lines, "\n") + "\n"
	asked := createUpload(w.tableName, w.Columns, len(content))
	upload := decoded(w.tables.CreateReferenceTableUpload(w.ctx, asked))
	part, err := http.NewRequest(http.MethodPut, upload.Data.Attributes.PartUrls[0], strings.NewReader(content))
	require(err == nil, "part url: %v", err)
	put, err := http.DefaultClient.Do(part)
	require(err == nil && put.StatusCode/100 == 2, "PUT of the part: %v %v", put, err)
	say("upload the file of a reference table")
	body := createTable(w.tableName, w.Columns, upload.Data.GetId())
	made := decoded(w.tables.CreateReferenceTable(w.ctx, body))
	w.tableID = made.Data.GetId()
	read := func() datadogV2.TableResultV2 { return decoded(w.tables.GetTable(w.ctx, w.tableID)) }
	table := poll("the table is done", read, func(got datadogV2.TableResultV2) bool {
		return got.Data.Attributes.GetStatus() == "DONE"
	})
	require(int(table.Data.Attributes.GetRowCount()) == len(w.Rows), "get table: %s", show(table))
	exact := *datadogV2.NewListTablesOptionalParameters().WithFilterTableNameExact(w.tableName)
	all := decoded(w.tables.ListTables(w.ctx, exact))
	require(len(all.Data) == 1 && all.Data[0].GetId() == w.tableID, "list tables: %s", show(all))
	say("create, get and list the reference table")
}

func (w *world) sendEvents() {
	for _, person := range w.People {
		more := map[string]any{"email": w.email(person.Key), "name": person.Name}
		user := identity{person.Key + "-" + w.run, more}
		names := []string{"signed_up"}
		if person.Ordered {
			names = append(names, "order_placed")
		}
		for _, name := range names {
			event := serverEvent(name, w.applicationID, user, w.account)
			decoded(w.events.SubmitProductAnalyticsEvent(w.ctx, event))
		}
	}
	say("submit events")
	everyone := func() datadogV2.QueryResponse {
		return w.users(w.everyone, []string{"user_id"}, "user_id", "ASC", "")
	}
	poll("users made by events", everyone, func(answer datadogV2.QueryResponse) bool {
		return int(total(answer)) == len(w.People)
	})
	say("the users are there")
}

func (w *world) awaitLoyal(wanted []string, what string) datadogV2.QueryResponse {
	columns := append([]string{"user_id", "user_email", "user_name"}, fields...)
	read := func() datadogV2.QueryResponse { return w.users(w.Search, columns, "lifetime_value", "DESC", "") }
	answer := poll(what, read, func(got datadogV2.QueryResponse) bool { return same(ids(got), wanted) })
	require(int(total(answer)) == len(wanted), "%s: total %d", what, total(answer))
	say("%s", what)
	return answer
}

func (w *world) checkValues(answer datadogV2.QueryResponse) {
	names, rows := map[string]string{}, map[string][]any{}
	for _, person := range w.People {
		names[person.Key] = person.Name
	}
	for _, cells := range w.Rows {
		rows[strings.ToLower(fmt.Sprint(cells[0]))] = cells[1:]
	}
	for at, key := range ids(answer) {
		hit := answer.Data.Attributes.Hits[at]
		got := []any{hit["user_email"], hit["user_name"], hit[fields[0]], hit[fields[1]], hit[fields[2]]}
		wanted := append([]any{w.email(key), names[key]}, rows[key]...)
		require(same(got, wanted), "values of %s: expected %s, got %s", key, show(wanted), show(got))
	}
	say("the values of the table are on the profiles")
}

func (w *world) checkQueries() {
	for _, person := range w.People {
		term := strings.ToUpper(person.Name)
		found := w.users(w.everyone, []string{"user_id", "user_name"}, "user_id", "ASC", term)
		require(same(ids(found), []string{person.Key}), "wildcard_search_term %s: %v", term, ids(found))
	}
	say("search by free text")
	all := decoded(w.audience.GetUserFacetInfo(w.ctx, facetInfo("customer_tier", w.everyone, "")))
	require(same(facet(all), w.Tiers), "facet of customer_tier: %s", show(facet(all)))
	one := decoded(w.audience.GetUserFacetInfo(w.ctx, facetInfo("customer_tier", w.everyone, "GOL")))
	require(same(facet(one), w.Tiers[:1]), "facet with term_search: %s", show(facet(one)))
	say("facets of a custom attribute")
	nowS := time.Now().Unix()
	search := "@type:server AND @event.name:order_placed AND @application.id:" + w.applicationID
	scope := w.everyone + " AND customer_tier:gold"
	body := queryEventFilteredUsers(scope, search, nowS-3600, nowS+60, []string{"user_id", "customer_tier"})
	buyers := decoded(w.audience.QueryEventFilteredUsers(w.ctx, body))
	keys := ids(buyers)
	slices.Sort(keys)
	require(same(keys, w.Buyers) && int(total(buyers)) == len(keys), "event filtered users: %s", show(buyers))
	say("event filtered users")
	query := "account_id:" + w.account.id
	accounts := decoded(w.audience.QueryAccounts(w.ctx, queryAccounts(query, []string{"account_id", "account_name"})))
	wanted := []any{map[string]any{"account_id": w.account.id, "account_name": w.account.more["name"]}}
	require(same(accounts.Data.Attributes.Hits, wanted), "query accounts: %s", show(accounts))
	names := decoded(w.audience.GetAccountFacetInfo(w.ctx, facetInfo("account_name", query, "")))
	require(same(facet(names), []any{[]any{w.account.more["name"], 1}}), "facet of account_name: %s", show(names))
	say("accounts and their facets")
}

func (w *world) checkRows() {
	w.checkPages()
	changed := w.row(w.UpsertedRow)
	key := fmt.Sprint(changed[w.Columns[0]])
	response, err := w.tables.UpsertRows(w.ctx, w.tableID, upsertRow(key, changed))
	if !missing("upsert rows", response) {
		expect(200)(response, err)
		w.awaitLoyal(w.LoyalAfterUpsert, "upsert rows, and the profiles follow")
		w.checkRead(key, changed)
	}
	response, err = w.tables.DeleteRows(w.ctx, w.tableID, deleteRow(w.email(w.DeletedRow)))
	if !missing("delete rows", response) {
		expect(200)(response, err)
		w.awaitLoyal(w.LoyalAfterDelete, "delete rows, and the profiles follow")
	}
}

func (w *world) checkPages() {
	keys := []string{}
	for token := ""; ; {
		more := datadogV2.NewListReferenceTableRowsOptionalParameters().WithPageLimit(4)
		if token != "" {
			more = more.WithPageContinuationToken(token)
		}
		page, response, err := w.tables.ListReferenceTableRows(w.ctx, w.tableID, *more)
		if missing("list rows", response) {
			return
		}
		for _, row := range decoded(page, response, err).Data {
			keys = append(keys, row.GetId())
		}
		if page.Meta == nil || page.Meta.Page == nil || page.Meta.Page.NextContinuationToken == nil {
			break
		}
		token = *page.Meta.Page.NextContinuationToken
	}
	wanted := []string{}
	for _, cells := range w.Rows {
		wanted = append(wanted, w.email(cells[0]))
	}
	slices.Sort(keys)
	slices.Sort(wanted)
	require(same(keys, wanted), "list rows in pages: expected %v, got %v", wanted, keys)
	say("list rows, page by page")
}

func (w *world) checkRead(key string, changed map[string]any) {
	keys := []string{key, w.email("nobody")}
	right := func(rows []datadogV2.TableRowResourceData) bool {
		return len(rows) == 1 && same(rows[0].Attributes.Values, changed)
	}
	rows, response, err := w.tables.GetRowsByID(w.ctx, w.tableID, keys)
	if !missing("get rows by id", response) {
		require(right(decoded(rows, response, err).Data), "get rows by id: %s", show(rows))
		say("get rows by id")
	}
	batch, response, err := w.tables.BatchRowsQuery(w.ctx, batchRows(w.tableID, keys))
	if !missing("batch rows query", response) {
		require(right(decoded(batch, response, err).Included), "batch rows query: %s", show(batch))
		say("batch rows query")
	}
}

func (a apis) runTable() {
	w := makeWorld(a)
	a.clear()
	w.createTable()
	w.sendEvents()
	a.define(map[string]string{"table_name": w.tableName})
	w.checkValues(w.awaitLoyal(w.Loyal, "filter and sort by custom attributes"))
	w.checkQueries()
	w.checkRows()
	a.remove()
	expect(200)(a.tables.DeleteTable(a.ctx, w.tableID))
	_, response, err := a.tables.GetTable(a.ctx, w.tableID)
	expect(404)(response, err)
	say("delete the table")
}
