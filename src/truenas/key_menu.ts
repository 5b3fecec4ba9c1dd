/** Where an API key is made in the web interface of TrueNAS (webui, `navigation.service.ts` and the users' page). */
export const KEY_MENU =
  "Credentials > Users > (the user) > Access > View API Keys (25.04: account menu > My API Keys)";
