// A shop with a few routes. What it is told to do stands in `window.asked`, which the test sets before anything runs.
const { version, proxy, proxyForm, compress, token, user, account } = window.asked;

window.DD_RUM.init({
  applicationId: "11111111-2222-3333-4444-555555555555",
  clientToken: token,
  proxy: proxyForm === "function" ? (options) => `${proxy}${options.path}?${options.parameters}` : proxy,
  service: "shop-web",
  env: "test",
  version: "1.2.3",
  sessionSampleRate: 100,
  sessionReplaySampleRate: 0,
  telemetrySampleRate: 0,
  compressIntakeRequests: compress,
  trackUserInteractions: true,
  trackAnonymousUser: true,
});
window.DD_RUM.addAction("looked around");

document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("add").addEventListener("click", () => {
    const item = document.createElement("li");
    item.textContent = "One thing";
    document.getElementById("cart").append(item);
  });
});

window.signIn = () => {
  window.DD_RUM.setUser(user);
  if (version >= 6) {
    window.DD_RUM.setAccount(account);
  }
};

window.visit = (path) => {
  history.pushState(null, "", path);
  document.getElementById("place").textContent = path;
};

window.pay = () => {
  window.DD_RUM.addAction("checkout", { cart: { value: 40.5, items: 3 }, coupon: null });
  window.DD_RUM.addError(new Error("card refused"), { step: "pay" });
};

// More than the 16 KiB at which the SDK sends what it has; no compression makes it smaller than that.
window.fill = () => {
  const noise = Array.from(crypto.getRandomValues(new Uint8Array(30_000)), (byte) => byte.toString(16).padStart(2, "0"));
  window.DD_RUM.addAction("filled in", { noise: noise.join("") });
};
