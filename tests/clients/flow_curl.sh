#!/bin/bash
# Runs the audience operations in the documented curl form against ROSTER_URL; needs curl and python3 only.
# The here-documents are quoted: unquoted, the shell would run what stands between backticks.
set -euo pipefail

: "${ROSTER_URL:?set the environment variable ROSTER_URL}"
: "${DD_API_KEY:?set the environment variable DD_API_KEY}"
: "${DD_APP_KEY:?set the environment variable DD_APP_KEY}"
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

fail() {
  echo "FAIL $1: $(cat "$answer")" >&2
  exit 1
}

# send NAME STATUS METHOD PATH [curl options]: a body, if any, is on standard input (-d @-)
send() {
  local name=$1 wanted=$2 method=$3 path=$4 got
  shift 4
  got=$(curl -sS -o "$answer" -w '%{http_code}' --max-time 30 -X "$method" "$ROSTER_URL$path" \
    -H "Accept: application/json" \
    -H "DD-API-KEY: ${DD_API_KEY}" \
    -H "DD-APPLICATION-KEY: ${DD_APP_KEY}" "$@") || fail "$name: curl"
  [ "$got" = "$wanted" ] || fail "$name: expected $wanted, got $got"
  echo "ok   $name: $got"
}

# check NAME EXPRESSION: a Python expression over the answer `a`, its attributes `t` and the type `k`
check() {
  python3 -c '
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    a = json.load(file)
t, k = a["data"]["attributes"], a["data"]["type"]
sys.exit(not eval(sys.argv[2]))
' "$answer" "$2" || fail "$1: not so: $2"
}

empty() {
  [ ! -s "$answer" ] || fail "$1: a body where none is documented"
}

json=(-H "Content-Type: application/json" -d @-)
analytics=/api/v2/product-analytics
connection=$analytics/users/mapping/connection

curl -sS -o "$answer" --max-time 30 -X DELETE "$ROSTER_URL$connection/crm-integration" \
  -H "DD-API-KEY: ${DD_API_KEY}" -H "DD-APPLICATION-KEY: ${DD_APP_KEY}" || fail "clear"

send "create connection" 201 POST "$connection" "${json[@]}" << 'EOF'
{
  "data": {
    "attributes": {
      "fields": [
        {
          "description": "Customer subscription tier from `CRM`",
          "display_name": "Customer Tier",
          "id": "customer_tier",
          "source_name": "subscription_tier",
          "type": "string"
        },
        {
          "description": "Customer lifetime value in `USD`",
          "display_name": "Lifetime Value",
          "id": "lifetime_value",
          "source_name": "ltv",
          "type": "number"
        }
      ],
      "join_attribute": "user_email",
      "join_type": "email",
      "type": "ref_table"
    },
    "id": "crm-integration",
    "type": "connection_id"
  }
}
EOF
empty "create connection"

send "update connection" 200 PUT "$connection" "${json[@]}" << 'EOF'
{
  "data": {
    "attributes": {
      "fields_to_add": [
        {
          "description": "Net Promoter Score from customer surveys",
          "display_name": "NPS Score",
          "groups": ["Satisfaction", "Metrics"],
          "id": "nps_score",
          "source_name": "net_promoter_score",
          "type": "number"
        }
      ],
      "fields_to_delete": ["old_revenue_field"],
      "fields_to_update": [
        {
          "field_id": "lifetime_value",
          "updated_display_name": "Customer Lifetime Value (`USD`)",
          "updated_groups": ["Financial", "Metrics"]
        }
      ]
    },
    "id": "crm-integration",
    "type": "connection_id"
  }
}
EOF
empty "update connection"

send "list connections" 200 GET "${connection}s"
check "list connections" 'k == "list_connections_response"'
check "list connections" '[sorted(f["id"] for f in c["fields"]) for c in t["connections"] if c["id"] == "crm-integration"] == [["customer_tier", "lifetime_value", "nps_score"]]'
check "list connections" 'all(c["join"]["type"] for c in t["connections"])'

send "mapping" 200 GET "$analytics/users/mapping"
check "mapping" 'k == "get_mappings_response"'
check "mapping" '{r["attribute"]: r["display_name"] for r in t["attributes"]}["@lifetime_value"] == "Customer Lifetime Value (`USD`)"'
check "mapping" '{r["attribute"]: r["is_custom"] for r in t["attributes"]}["user_id"] is False'

send "query users" 200 POST "$analytics/users/query" "${json[@]}" << 'EOF'
{
  "data": {
    "attributes": {
      "limit": 25,
      "query": "customer_tier:gold AND nps_score:>8",
      "select_columns": ["user_id", "user_email", "customer_tier", "last_seen"],
      "sort": {"field": "lifetime_value", "order": "DESC"},
      "wildcard_search_term": "john"
    },
    "id": "query_users_request",
    "type": "query_users_request"
  }
}
EOF
check "query users" 'k == "query_response" and t["hits"] == [] and t["total"] == 0'

send "query accounts" 200 POST "$analytics/accounts/query" "${json[@]}" << 'EOF'
{
  "data": {
    "attributes": {
      "limit": 20,
      "query": "account_id:none-such",
      "select_columns": ["account_id", "account_name"],
      "sort": {"field": "account_id", "order": "DESC"}
    },
    "id": "query_account_request",
    "type": "query_account_request"
  }
}
EOF
check "query accounts" 'k == "query_response" and t["hits"] == [] and t["total"] == 0'

send "query event filtered users" 200 POST "$analytics/users/event_filtered_query" "${json[@]}" << 'EOF'
{
  "data": {
    "attributes": {
      "event_query": {
        "query": "@type:view AND @view.loading_time:>3000 AND @application.name:ecommerce-platform",
        "time_frame": {"end": 1761309676, "start": 1760100076}
      },
      "include_row_count": true,
      "limit": 25,
      "query": "first_country_code:US AND first_browser_name:Chrome",
      "select_columns": ["user_id", "user_email", "first_country_code", "events_count", "avg_loading_time"]
    },
    "id": "query_event_filtered_users_request",
    "type": "query_event_filtered_users_request"
  }
}
EOF
check "query event filtered users" 'k == "query_response" and t["total"] >= len(t["hits"])'

for entity in users accounts; do
  send "facet info of $entity" 200 POST "$analytics/$entity/facet_info" "${json[@]}" << 'EOF'
{
  "data": {
    "attributes": {
      "facet_id": "first_browser_name",
      "limit": 10,
      "search": {"query": "first_country_code:US"},
      "term_search": {"value": "Chrome"}
    },
    "id": "facet_info_request",
    "type": "users_facet_info_request"
  }
}
EOF
  check "facet info of $entity" 'k == "users_facet_info" and all(v["count"] > 0 for v in t["result"].get("values") or [])'
done

send "create connection, not JSON" 400 POST "$connection" "${json[@]}" <<< '{"data": '
grep -q '"errors"' "$answer" || fail "an error body"

send "delete connection" 204 DELETE "$connection/crm-integration"
empty "delete connection"
send "delete connection again" 404 DELETE "$connection/crm-integration"
grep -q '"errors"' "$answer" || fail "an error body"
echo "done curl"
