/** One client connection as the services see it: who is logged in, its options and subscriptions. */

import { randomUUID } from "node:crypto";
import type { JsonObject } from "./json.ts";
import { date } from "./json.ts";
import type { Release } from "./release.ts";
import type { User } from "./world.ts";

export class Session {
  readonly id = randomUUID();
  user: User | undefined;
  mechanism: "LOGIN_PASSWORD" | "API_KEY" | "TOKEN" = "LOGIN_PASSWORD";
  loginAt = 0;
  private loginId = randomUUID();
  options = { legacy_jobs: true, private_methods: false, py_exceptions: false };
  /** Subscription id to the name of the event. */
  readonly subscriptions = new Map<string, string>();
  /** Set when the connection is gone; 26 stops the work of its calls. */
  closed = false;

  constructor(readonly address: string, private readonly release: Release) {}

  login(user: User, mechanism: Session["mechanism"], now: number): void {
    this.user = user;
    this.mechanism = mechanism;
    this.loginAt = now / 1000;
    this.loginId = randomUUID();
  }

  /** Its time is over: the next message finds nobody logged in, the socket stays open. */
  expire(): void {
    this.user = undefined;
  }

  logout(): void {
    this.user = undefined;
    this.subscriptions.clear();
  }

  get fullAdmin(): boolean {
    return this.user?.roles.includes("FULL_ADMIN") ?? false;
  }

  /** Whether the user has one of the roles; a full administrator has all. */
  has(roles: readonly string[] | undefined): boolean {
    if (this.user === undefined) return false;
    return this.fullAdmin || this.user.roles.some((role) => roles?.includes(role));
  }

  credentials(): JsonObject {
    const data: JsonObject = { username: this.user?.name ?? "" };
    if (this.release.major !== 2504) data.login_id = this.loginId;
    data.login_at = date(this.loginAt);
    if (this.mechanism === "API_KEY") {
      data.api_key = { id: this.user?.apiKeyId ?? 0, name: this.user?.name ?? "" };
    }
    return { type: this.mechanism, data };
  }
}
