/**
 * A method and its positional parameters as a request of the REST API v2.0. Pure.
 *
 * The server builds its routes from the same methods (`middlewared/restful.py` of 25.04 and 25.10):
 *
 *   x.y.query               GET     x/y                   {"query-filters": [...], "query-options": {...}}
 *   x.y.create              POST    x/y                   the data itself
 *   x.y.update, x.y.delete  PUT, DELETE  x/y/id/<id>      as below, without the id
 *   item methods            POST    x/y/id/<id>/<method>  as below, without the id
 *   others                  POST    x/y/<method>          one parameter: itself; several: an object of them
 *   without parameters      GET     x/y/<method>
 *
 * A GET takes its parameters as a body, too ("RFC 7231 specifies that a GET request can accept a
 * payload body"). The query string would do for simple filters only: it has no `select`, no `in` and no
 * `force_sql_filters`, and takes a name of digits for a number. What a proxy must not lose on the way
 * is checked in `rest_filters.ts`.
 */

/** A request of the REST API. */
export interface RestCall {
  readonly verb: "GET" | "POST" | "PUT" | "DELETE";
  /** Below `/api/v2.0/`, percent-encoded. */
  readonly path: string;
  /** JSON text; undefined for none. */
  readonly body: string | undefined;
}

type Way = (method: string, params: readonly unknown[]) => RestCall;

const pathOf = (name: string) => name.replaceAll(".", "/");
const serviceOf = (method: string) => pathOf(method.slice(0, method.lastIndexOf(".")));
const verbOf = (method: string) => method.slice(method.lastIndexOf(".") + 1);

/** `tank/pve/vm-1@s` -> `tank%2Fpve%2Fvm-1%40s`: one segment of the path. */
const segment = (id: unknown) => encodeURIComponent(String(id));

/** The parameters as the server takes them apart again: by name, unless there is only one to be had. */
function bodyOf(names: readonly string[], params: readonly unknown[]): string | undefined {
  const given = params.slice(0, names.length);
  if (given.length === 0) return undefined;
  if (names.length === 1) return JSON.stringify(given[0]);
  return JSON.stringify(Object.fromEntries(given.map((value, index) => [names[index], value])));
}

const get: Way = (method) => ({ verb: "GET", path: pathOf(method), body: undefined });

/** Answers at the service's own path, e.g. `iscsi.global.config`. */
const getService: Way = (method) => ({ verb: "GET", path: serviceOf(method), body: undefined });

const queryAt = (path: string, params: readonly unknown[]): RestCall => ({
  verb: "GET",
  path,
  body: JSON.stringify({ "query-filters": params[0] ?? [], "query-options": params[1] ?? {} }),
});

const query: Way = (method, params) => queryAt(serviceOf(method), params);

const create: Way = (method, params) => ({
  verb: "POST",
  path: serviceOf(method),
  body: JSON.stringify(params[0] ?? {}),
});

const onItem = (verb: "PUT" | "DELETE", ...names: string[]): Way => (method, params) => ({
  verb,
  path: `${serviceOf(method)}/id/${segment(params[0])}`,
  body: bodyOf(names, params.slice(1)),
});

const item = (...names: string[]): Way => (method, params) => ({
  verb: "POST",
  path: `${serviceOf(method)}/id/${segment(params[0])}/${verbOf(method)}`,
  body: bodyOf(names, params.slice(1)),
});

const post = (...names: string[]): Way => (method, params) => ({
  verb: "POST",
  path: pathOf(method),
  body: bodyOf(names, params),
});

/** The names are those of the method's parameters in the models of the server (`middlewared/api`). */
const WAYS: Readonly<Record<string, Way>> = {
  "core.get_jobs": (_method, params) => queryAt("core/get_jobs", params),
  "system.version": get,
  "service.query": query,
  "service.started": post("service"),
  "service.control": post("verb", "service", "options"),
  "pool.query": query,
  "replication.query": query,
  "pool.dataset.query": query,
  "pool.dataset.create": create,
  "pool.dataset.update": onItem("PUT", "data"),
  "pool.dataset.delete": onItem("DELETE", "options"),
  "pool.dataset.promote": item(),
  "pool.dataset.attachments": item(),
  "pool.dataset.rename": post("id", "data"),
  // Public on 25.10, and no CRUD service: a POST.
  "zfs.resource.query": post("data"),
  "iscsi.global.config": getService,
  "iscsi.global.sessions": post("query_filters", "query_options"),
  "iscsi.portal.query": query,
  "iscsi.initiator.query": query,
  "iscsi.auth.query": query,
  "iscsi.target.query": query,
  "iscsi.extent.query": query,
  "iscsi.extent.create": create,
  "iscsi.extent.update": onItem("PUT", "iscsi_extent_update"),
  "iscsi.extent.delete": onItem("DELETE", "remove", "force"),
  "iscsi.targetextent.query": query,
  "iscsi.targetextent.create": create,
  "iscsi.targetextent.update": onItem("PUT", "iscsi_target_to_extent_update"),
  "iscsi.targetextent.delete": onItem("DELETE", "force"),
  ...snapshots("zfs.snapshot"),
  ...snapshots("pool.snapshot"),
  // Looked at before a zvol is destroyed; nothing is ever written there over REST.
  "nvmet.subsys.query": query,
  "nvmet.namespace.query": query,
  "nvmet.port_subsys.query": query,
  "nvmet.host_subsys.query": query,
};

function snapshots(service: string): Record<string, Way> {
  return {
    [`${service}.query`]: query,
    [`${service}.create`]: create,
    [`${service}.update`]: onItem("PUT", "data"),
    [`${service}.delete`]: onItem("DELETE", "options"),
    [`${service}.clone`]: post("data"),
    [`${service}.rollback`]: post("id", "options"),
    [`${service}.hold`]: post("id", "options"),
    [`${service}.release`]: post("id", "options"),
    [`${service}.rename`]: post("id", "options"),
  };
}

/**
 * The request for a call; undefined for what REST does not offer (`core.bulk`, `core.subscribe` and
 * `auth.me` need a WebSocket: `require_websocket` in `restful.py`) or what tnblock does not use.
 */
export function restCall(method: string, params: readonly unknown[]): RestCall | undefined {
  return Object.hasOwn(WAYS, method) ? WAYS[method]?.(method, params) : undefined;
}
