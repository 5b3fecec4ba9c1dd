/**
 * The routes of the REST API v2.0, built as `middlewared/restful.py` builds them: from the methods
 * that the release has, by the kind of their service (with rows, with one configuration, or neither).
 */

import type { MethodModel, ModelTable } from "./models/tables.ts";
import { modelTable } from "./models/tables.ts";
import type { Release } from "./release.ts";
import { REPLICATION_QUERY } from "./services/replication.ts";

export type Verb = "GET" | "POST" | "PUT" | "DELETE";

/** Where a request leads. */
export interface Route {
  readonly model: MethodModel;
  /** A query: takes filters and options from the query string, or from a body. */
  readonly filterable: boolean;
  /** The first parameter is the id in the path. */
  readonly item: boolean;
}

/** A request's place: the route and what stands for `{id}`, `undefined` for none. */
export interface Place {
  readonly route: Route;
  readonly id: string | undefined;
}

/** Methods that take the connection itself: they are not offered over REST (`require_websocket`). */
const NEEDS_WEBSOCKET: readonly RegExp[] = [
  /^auth\.(login|logout|me$|mechanism_choices$|sessions$)/,
  /^core\.(bulk|get_methods|set_options|subscribe|unsubscribe)$/,
  /^api_key\.my_keys$/,
  /^system\.boot_id$/,
];

/** Item methods besides `update` and `delete`. */
const ON_ITEMS = ["pool.dataset.attachments", "pool.dataset.promote"];

const known = new Map<string, ReadonlyMap<string, ReadonlyMap<Verb, Route>>>();

/** Path, with `{id}` for the id, to what each HTTP method does there. */
function routesOf(release: Release): ReadonlyMap<string, ReadonlyMap<Verb, Route>> {
  const found = known.get(release.name);
  if (found !== undefined) return found;
  const table = modelTable(release.dialect);
  const routes = new Map<string, Map<Verb, Route>>();
  const add = (verb: Verb, path: string, route: Route) => {
    const place = routes.get(path) ?? new Map<Verb, Route>();
    place.set(verb, route);
    routes.set(path, place);
  };
  for (const model of table.methods.values()) addMethod(model, table, add);
  add("GET", "replication", { model: REPLICATION_QUERY, filterable: true, item: false });
  known.set(release.name, routes);
  return routes;
}

function addMethod(
  model: MethodModel,
  { methods }: ModelTable,
  add: (verb: Verb, path: string, route: Route) => void,
): void {
  const dot = model.method.lastIndexOf(".");
  const service = model.method.slice(0, dot);
  const short = model.method.slice(dot + 1);
  const path = service.replaceAll(".", "/");
  const rows = methods.has(`${service}.query`) && methods.has(`${service}.get_instance`);
  const single = methods.has(`${service}.config`);
  const filterable = isFilterable(model);
  const plain: Route = { model, filterable, item: false };
  const item: Route = { model, filterable, item: true };
  if (rows && short === "query") {
    add("GET", path, plain);
    add("GET", `${path}/id/{id}`, plain);
  } else if (rows && short === "create") add("POST", path, plain);
  else if (rows && short === "update") add("PUT", `${path}/id/{id}`, item);
  else if (rows && short === "delete") add("DELETE", `${path}/id/{id}`, item);
  else if (single && short === "config") add("GET", path, plain);
  else if (single && short === "update") add("PUT", path, plain);
  else if (!NEEDS_WEBSOCKET.some((pattern) => pattern.test(model.method))) {
    const onItem = ON_ITEMS.includes(model.method);
    const verb = model.names.length > 0 && !filterable ? "POST" : "GET";
    add(verb, `${path}${onItem ? "/id/{id}" : ""}/${short}`, onItem ? item : plain);
  }
}

/** Whether the parameters are those that every query has; `iscsi.global.sessions` has look-alikes. */
function isFilterable({ names }: MethodModel): boolean {
  const text = names.join();
  return text === "filters,options" || text === "query-filters,query-options";
}

/**
 * Finds the route of a path below `/api/v2.0/`, as it stands in the request line.
 *
 * @returns undefined when there is no such path, "other" when the path has no such verb.
 */
export function findRoute(
  release: Release,
  verb: string,
  raw: string,
): Place | "other" | undefined {
  const routes = routesOf(release);
  const path = raw.replace(/\/$/, "");
  const match = /^(.*\/id)\/([^/]+)(\/[^/]+)?$/.exec(path);
  const verbs = routes.get(path) ??
    (match === null ? undefined : routes.get(`${match[1]}/{id}${match[3] ?? ""}`));
  if (verbs === undefined) return undefined;
  const route = verbs.get(verb as Verb);
  if (route === undefined) return "other";
  return { route, id: match === null ? undefined : decodeURIComponent(match[2] ?? "") };
}
