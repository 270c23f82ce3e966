import { Button } from "govuk-frontend/dist/govuk/components/button/button.mjs";
import { ErrorSummary } from "govuk-frontend/dist/govuk/components/error-summary/error-summary.mjs";
import { NotificationBanner } from "govuk-frontend/dist/govuk/components/notification-banner/notification-banner.mjs";
import { PasswordInput } from "govuk-frontend/dist/govuk/components/password-input/password-input.mjs";
import { ServiceNavigation } from "govuk-frontend/dist/govuk/components/service-navigation/service-navigation.mjs";
import { SkipLink } from "govuk-frontend/dist/govuk/components/skip-link/skip-link.mjs";
import { keepTimesTrue } from "./time";

document.body.classList.add("js-enabled", "govuk-frontend-supported");
const start = (selector: string, Component: any) =>
  document.querySelectorAll(selector).forEach((el) => new Component(el));
start('[data-module="govuk-button"]', Button);
start('[data-module="govuk-error-summary"]', ErrorSummary);
start('[data-module="govuk-notification-banner"]', NotificationBanner);
start('[data-module="govuk-password-input"]', PasswordInput);
start('[data-module="govuk-service-navigation"]', ServiceNavigation);
start('[data-module="govuk-skip-link"]', SkipLink);
keepTimesTrue();

// "Copy" buttons are only shown when they can work.
document.querySelectorAll<HTMLButtonElement>("button[data-copy]").forEach((button) => {
  const source = document.getElementById(button.dataset.copy!);
  if (!source || !navigator.clipboard) return;
  button.hidden = false;
  const label = button.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText((source.textContent || "").trim());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), 2000);
  });
});

// A file picked for an import is read into the form's text box, so that what
// will be sent can be seen before it is.
document.querySelectorAll<HTMLInputElement>("input[type=file][data-into]").forEach((input) => {
  const box = document.getElementById(input.dataset.into!) as HTMLTextAreaElement | null;
  if (!box) return;
  input.addEventListener("change", async () => {
    const file = input.files && input.files[0];
    if (file && file.size <= 262144) box.value = await file.text();
  });
});
